"""Write docs/choosing-a-source.md from the evidence that ships: `python -m benchmarks.choosing`.

What needs predictions (ensembles) or frozen features (LogME and the like) is read from benchmarks/results; with the
store of whoever ran the suites, `--store benchmarks.db`, it is reckoned anew and written there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.choosing.answers import Lookups, document
from benchmarks.run import find
from metamed.store import Store

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="with predictions and features; the evidence that ships if missing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "choosing-a-source.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if options.store:
        with Store(options.store) as store:
            Lookups.reckoned(store, find).write(options.results)
            text = document(store, Lookups.read(options.results), options.results)
    else:
        text = document(Store.embedded(), Lookups.read(options.results), options.results)
    options.out.write_text(text, encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
