"""A module imports only from floors below its own; heavy guests stay in their rooms: read from the imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# One row a line, lowest first; a module imports only from rows above its own in this list. The number is the floor of
# docs/architecture.md; several rows of one floor are in an order.
FLOORS = """
0  errors parallel
0  label_kinds assessments
0  dataset
0  records
1  methods measures readers executors robustness machine splits serving
1  crowd
1  judged
2  tasks store training
2  overlays metafeatures flows
2  report
3  sources ensembles
3  jobs
3  experiments exams
3  prediction
3  embedding_prediction
3  bag_prediction mask_prediction
3  metalearner trust
4  recommend exchange asking assessing collecting
4  tuning
5  cli
6  __init__ __main__
"""
ROWS = [line.split()[1:] for line in FLOORS.strip().splitlines()]
ROW_OF = {room: number for number, rooms in enumerate(ROWS) for room in rooms}

GUESTS = {
    "h5py": {"readers"},
    "deflate": {"readers"},
    "_metamed_pixels": {"metafeatures"},
    "_metamed_triplets": {"crowd"},
    "PIL": {"readers", "collecting"},
    "pydicom": {"readers"},
    "nibabel": {"readers"},
    "tifffile": {"readers"},
    "torch": {"training", "flows", "sources", "jobs", "machine"},
    "torchvision": {"flows", "sources"},
    "timm": {"flows"},
    "safetensors": {"training"},
    "sklearn": {"flows", "exams", "metafeatures"},
    "scipy": {"exams", "flows", "crowd", "assessing"},
    "skimage": {"flows"},
    "xgboost": {"metalearner"},
    "pandas": {"store", "exams", "metafeatures", "crowd"},
    "crowdkit": {"crowd"},
    "pymfe": {"metafeatures"},
    "openml": {"exchange"},
    "arff": {"exchange"},
    "xmltodict": {"exchange"},
    "requests": {"exchange"},
    "filelock": {"exchange"},
    "starlette": {"exchange", "collecting"},
    "uvicorn": {"serving"},
    "defusedxml": {"exchange"},
    "optuna": {"tuning"},
    "distributed": {"executors"},
    "submitit": {"executors"},
    "matplotlib": {"report", "assessing"},
    "jinja2": {"report", "exchange"},
    "platformdirs": {"store", "recommend"},
    "typer": {"cli"},
    "rich": {"cli"},
    "sqlite3": {"store"},
    "numpy": set(ROW_OF),
}
# where a guest may be imported on the top level: everybody else pays for it inside the function that needs it
# (openml: by exchange/extension.py alone, whose class is one of openml's)
AT_THE_TOP = {"numpy": set(ROW_OF), "torch": {"training", "flows"}, "torchvision": {"flows"}, "h5py": {"readers"},
              "typer": {"cli"}, "sqlite3": {"store"}, "openml": {"exchange"}}  # fmt: skip


def _modules() -> dict[str, Path]:
    """Full name -> file of every module; flows lie beside the package."""
    found = {}
    for folder, name in ((ROOT / "metamed", "metamed"), (ROOT / "flows", "metamed.flows")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((name, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _imports(path: Path) -> list[tuple[str, bool]]:
    """(imported name, on the top level?) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {node for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
              for node in ast.walk(function)}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name if name in MODULES else node.module, node not in inside) for name in names]
    return found


def test_every_module_has_a_floor():
    assert {_room(module) for module in MODULES} <= set(ROW_OF)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_below(module):
    room = _room(module)
    for name, at_the_top in _imports(MODULES[module]):
        if name not in MODULES or name == "metamed" or _room(name) == room:
            continue
        if _room(name) == "flows" and not at_the_top:  # flows are imported by name, only when used
            continue
        assert ROW_OF[_room(name)] < ROW_OF[room], f"{room} imports {_room(name)}, which is not below it"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_guests_stay_in_their_rooms(module):
    room = _room(module)
    for name, at_the_top in _imports(MODULES[module]):
        guest = name.split(".")[0]
        if guest == "metamed" or (guest in sys.stdlib_module_names and guest not in GUESTS):
            continue
        assert guest in GUESTS, f"{room} imports {guest}, which has no room"
        assert room in GUESTS[guest], f"{room} imports {guest}, whose room is {GUESTS[guest]}"
        if at_the_top:
            assert room in AT_THE_TOP.get(guest, set()), f"{room} imports {guest} on the top level"


def test_every_folder_of_code_is_in_the_package():
    """Packages are listed by hand: a folder that is forgotten is missing only where metamed is installed."""
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in MODULES.items()}
    assert sorted(listed) == sorted(folders)
