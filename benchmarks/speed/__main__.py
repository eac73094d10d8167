"""Runs the benchmarks named, or all of them, and says whether they keep their bars."""

import argparse
from importlib import import_module

from benchmarks import speed
from benchmarks.speed.timing import BARS

for part in ("starting", "images", "files", "tables", "volumes", "learning", "training", "bags", "triplets"):
    import_module(f"benchmarks.speed.{part}")


def main() -> None:
    parser = argparse.ArgumentParser(description=speed.__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BARS], metavar="NAME", help=", ".join(BARS))
    for name in parser.parse_args().names or BARS:
        ours, peer = BARS[name].run()
        ratio, limit = ours / peer, BARS[name].at_most
        verdict = "kept" if ratio <= limit else "MISSED"
        print(f"{name}: {ratio:.3g} x, or 1/{1 / ratio:.3g} (bar {limit:.3g} x, or 1/{1 / limit:.3g}: {verdict}); "
              f"{ours:.4g} against {peer:.4g} {BARS[name].unit}", flush=True)  # fmt: skip
        print(f"  {BARS[name].run.__doc__.splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main()
