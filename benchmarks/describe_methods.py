"""Write metamed/data/methods.json from the registry: `python -m benchmarks.describe_methods` after a method changed."""

from pathlib import Path

import metamed
from metamed.methods import describe

if __name__ == "__main__":
    path = Path(metamed.__file__).parent / "data" / "methods.json"
    path.write_text(describe(), encoding="utf-8", newline="\n")
