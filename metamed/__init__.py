"""metamed: which method, which transfer source and which multiple-instance variant to try on a medical dataset."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"

# In a checkout `flows/` lies beside this package, not in it: metamed.flows is then found there, installed or not.
if (Path(__file__).parent.parent / "flows" / "blocks.py").exists():
    __path__.append(str(Path(__file__).parent.parent))

_ROOMS = {
    "dataset": ("Dataset", "Card"),
    "assessments": ("Triplets", "Ratings", "Rankings"),
    "crowd": ("annotator_quality", "embed", "keep_reliable"),
    "records": ("Setup", "Task", "Run", "Source", "Recommendation"),
    "errors": ("MetamedError",),
    "methods": ("methods", "sample_setups"),
    "readers": ("read", "read_assessments"),
    "assessing": ("assess",),
    "metafeatures": ("extract", "extract_pair", "feature_names"),
    "metafeatures.extractor": ("MetaFeatureExtractor",),
    "store": ("Store",),
    "tasks": ("make_task",),
    "experiments": ("Suite", "repeat", "run_setup", "run_suite"),
    "prediction": ("Predictor",),
    "tuning": ("tune",),
    "metalearner": ("MetaLearner",),
    "recommend": ("recommend",),
    "report": ("render",),
    "exchange.publish": ("publish",),
    "exchange.retrieve": ("retrieve",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_ROOM_OF)


def __getattr__(name: str):
    """Import a public name from its room on first use (PEP 562): `import metamed` itself costs nothing."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'metamed' has no attribute {name!r}")
    return getattr(import_module(f"metamed.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Lets the functions `methods` and `recommend` win over the rooms of the same name, whenever those are imported."""

    def __setattr__(self, name: str, value) -> None:
        if isinstance(value, ModuleType) and _ROOM_OF.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
