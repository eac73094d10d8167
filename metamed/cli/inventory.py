"""What there is: registries and records as rows for people, and what this machine has."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metamed.errors import UnknownName


def rows(what: str, evidence: Callable) -> list[dict]:
    """The entries of one of `LISTS`, one dictionary each with the same keys; UnknownName for another word.

    evidence: opens the store; called only by the lists that need it.
    """
    if what not in LISTS:
        raise UnknownName("list", what, LISTS)
    return LISTS[what](evidence)


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]


def _methods(_) -> list[dict]:
    from metamed.methods import described

    return [{"name": m.name, "kind": m.kind, "description": _first_line(m.description)} for m in described().values()]


def _metafeatures(_) -> list[dict]:
    from metamed.metafeatures import METAFEATURES

    return [{"name": m.name, "group": m.group, "description": m.facts["definition"]} for m in METAFEATURES.values()]


def _readers(_) -> list[dict]:
    from metamed.readers import READERS

    return [{"name": r.name, "suffixes": " ".join(r.suffixes), "description": _first_line(r.description)}
            for r in READERS.values()]  # fmt: skip


def _measures(_) -> list[dict]:
    from metamed.measures import MEASURES

    return [{"name": m.name, "kinds": " ".join(m.kinds), "description": _first_line(m.function.__doc__)}
            for m in MEASURES.values()]  # fmt: skip


def _datasets(evidence: Callable) -> list[dict]:
    facts = evidence().records("dataset")
    return [{"name": f.name, "kind": f.kind, "samples": f.n_samples or "?", "classes": f.n_classes or "?",
             "modality": f.card.modality, "family": f.family} for f in facts]  # fmt: skip


def _sources(evidence: Callable) -> list[dict]:
    return [{"name": s.name, "network": s.network, "corpus": " ".join(s.corpus), "origin": s.origin,
             "licence": s.licence} for s in evidence().records("source")]  # fmt: skip


def _runs(evidence: Callable) -> list[dict]:
    store = evidence()
    tasks, setups = ({r.id: r for r in store.records(table)} for table in ("task", "setup"))
    return [{"id": r.id[:12], "dataset": tasks[r.task].dataset, "setup": setups[r.setup].label, "seed": r.seed,
             "measure": tasks[r.task].measure, "score": round(r.score(tasks[r.task].measure), 4),
             "error": r.error or ""}
            for r in store.runs()]  # fmt: skip


LISTS = {"methods": _methods, "metafeatures": _metafeatures, "readers": _readers, "measures": _measures,
         "datasets": _datasets, "sources": _sources, "runs": _runs}  # fmt: skip



def examine(store) -> dict[str, Any]:
    """Versions, device, store, OpenML key (whether there is one), extras."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from metamed.crowd import likelihood
    from metamed.metafeatures import kernels
    from metamed.store import default_path
    from metamed.training import pick_device

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    packages = ("metamed", "numpy", "h5py", "torch", "torchvision", "scikit-learn", "xgboost", "openml", "pandas")
    extras = {"medical": ("pydicom", "nibabel", "tifffile"), "pymfe": ("pymfe",),
              "serve": ("starlette", "uvicorn", "python_multipart", "defusedxml"), "onnx": ("onnx", "onnxscript"),
              "dask": ("distributed",), "slurm": ("submitit",), "mil": ("torchmil",),
              "crowd": ("crowdkit",)}  # fmt: skip
    plain = "numpy, slower: pip install metamed where there is a C compiler"
    return {
        "python": sys.version.split()[0], **{name: of(name) for name in packages},
        "device": str(pick_device()), "store": str(default_path()), "runs and figures": len(store),
        "OpenML key": "set" if _has_key() else "not set",
        **{f"{name} kernel": "compiled" if module.COMPILED else plain
           for name, module in (("pixel", kernels), ("triplet", likelihood))},
        **{f"extra {name}": "installed" if all(map(find_spec, parts)) else f'pip install "metamed[{name}]"'
           for name, parts in extras.items()},
    }  # fmt: skip


def _has_key() -> bool:
    """Is there an apikey in openml's own configuration file? Read as text: importing openml takes seconds."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser()
    for path in (folder / "openml" / "config", folder / "config", Path("~/.openml/config").expanduser()):
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                name, _, value = line.partition("=")
                if name.strip() == "apikey" and value.strip():
                    return True
    return False
