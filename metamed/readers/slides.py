"""Folders with one file for each bag, as CLAM, TRIDENT and torchmil write them: read lazily, file by file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from metamed.dataset import UNLABELLED, Card, Dataset
from metamed.errors import ReadError
from metamed.readers.encodings import Axes, encode_groups, encode_labels, encode_split, find_axes
from metamed.readers.layouts import ROLES, Wanted
from metamed.readers.lazy import LazyImages, finite
from metamed.readers.registry import reader
from metamed.readers.tables import numbers, read_columns, role

_PATCHES = ("features", "feats", "imgs", "img", "images")  # key of a slide's instances, the preferred first
_PARTS = {"instance_target": ("inst_labels", "instance_labels", "patch_labels"),
          "coordinates": ("coords", "coordinates")}  # fmt: skip


class BagFiles(LazyImages):
    """The instances of many files, one bag a file, one after the other. Only the files that are asked for are opened.

    instances: number of them in each file.
    """

    def __init__(self, files: list[Path], instances: np.ndarray, axes: Axes):
        super().__init__(axes.shape, axes.dtype)
        self.files, self.axes, self.ends = files, axes, np.cumsum(instances)

    def _read(self, start: int, stop: int) -> np.ndarray:
        parts = []
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        for k in range(first, last + 1):
            begin = int(self.ends[k - 1]) if k else 0
            low, high = max(start - begin, 0), min(stop, int(self.ends[k])) - begin
            block = self.axes.arrange(_load(self.files[k], low, high))
            parts.append(finite(block, low, self.files[k].name))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class _Bag:
    """One file as it was found: its instances' shape and type, and what lies beside them in it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    coordinates: np.ndarray | None = None
    instance_target: np.ndarray | None = None


# ---- CLAM and TRIDENT: one HDF5 file a slide, labels in a table


def _slide_key(file: h5py.File) -> str | None:
    return next((key for key in _PATCHES if isinstance(file.get(key), h5py.Dataset)), None)


def _fits_slides(path: Path) -> bool:
    first = next(iter(sorted(path.rglob("*.h5"))), None)
    if first is None or not h5py.is_hdf5(first) or _fits_torchmil(path):
        return False
    with h5py.File(first, "r") as file:
        return not {*file} & {*ROLES["bags"], *ROLES["masks"]} and ("coords" in file or _slide_key(file) == "features")


@reader(".h5", folder=True, fits=_fits_slides)
def slides(path: Path, wanted: Wanted) -> Dataset:
    """Folder of slides (CLAM, TRIDENT): one .h5 a slide with features and coords, and a table (CSV) of slide_id, label
    and case_id in it or beside it. --images FOLDER chooses among encoders, --labels TABLE.csv the table."""
    files = _one_encoder(path, {p for p in path.rglob("*.h5") if _holds_instances(p)}, wanted.images)
    table, columns = _label_table(path, files, wanted.labels)
    names = [p.stem for p in files]
    facts, card, notes = _slide_facts(table, columns, names, wanted)
    return _dataset(path, files, [_look(p) for p in files], facts, card, notes)


def _holds_instances(path: Path) -> bool:
    with _opened(path) as file:
        return _slide_key(file) is not None


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ReadError(f"{path.name}: damaged or cut off ({str(error)[:80]}). Copy it again, or remove it") from error


def _look(path: Path) -> _Bag:
    with _opened(path) as file:
        stored = file[_slide_key(file)]
        beside = {part: next((file[k][()] for k in keys if k in file), None) for part, keys in _PARTS.items()}
        if stored.ndim < 2:
            raise ReadError(f"{path.name}: holds one vector a slide {stored.shape} (TRIDENT's slide features), no bag. "
                            "Give the folder of patch features, or learn from the vectors as images")  # fmt: skip
        old = stored.ndim == 3 and stored.shape[0] == 1  # old CLAM wrote (1, N, D)
        return _Bag(stored.shape[1:] if old else stored.shape, stored.dtype, **beside)


def _load(path: Path, low: int, high: int) -> np.ndarray:
    """Instances low to high of a file as stored."""
    if path.suffix == ".npy":
        return np.array(_mapped(path)[low:high])
    with _opened(path) as file:
        stored = file[_slide_key(file)]
        return stored[0, low:high] if stored.ndim == 3 and stored.shape[0] == 1 else stored[low:high]


def _one_encoder(path: Path, files: set[Path], folder: str | None) -> list[Path]:
    """The files of one folder of features, in order of name; an error where several encoders' lie side by side."""
    if folder is not None:
        files = {p for p in files if folder in p.relative_to(path).parts}
    by_stem: dict[str, Path] = {}
    for file in sorted(files):
        other = by_stem.setdefault(file.stem, file)
        if other != file:
            places = ", ".join(sorted({p.parent.name for p in files})[:6])
            raise ReadError(f"{path}: '{file.stem}' lies in several folders ({places}), one an encoder. Give one of "
                            f"them as dataset, or --images {other.parent.name}")  # fmt: skip
    if len(by_stem) < 2:
        hint = " Files with coords only hold no features yet: extract them first." if not files else ""
        raise ReadError(f"{path}: holds {len(by_stem)} bags with instances; at least 2 are needed.{hint}")
    return list(by_stem.values())


def _label_table(path: Path, files: list[Path], asked: str | None) -> tuple[Path, dict[str, np.ndarray]]:
    """The table in the folder, beside it, or asked for, one of whose columns names the slides."""
    if asked is not None and asked.endswith(".csv"):
        places = [p for p in (Path(asked).expanduser(), path / asked) if p.is_file()][:1]
        if not places:
            raise ReadError(f"{asked}: no such table of labels")
    else:
        places = [*sorted(path.rglob("*.csv")), *sorted(path.parent.glob("*.csv"))]
    tables = [(table, read_columns(table)) for table in places]
    found = [(table, columns) for table, columns in tables if _name_column(columns, {p.stem for p in files})]
    if len(found) != 1:
        seen = f"{len(found)} tables ({', '.join(t.name for t, _ in found[:4])}) name" if found else "no table names"
        raise ReadError(f"{path}: {seen} the slides ({files[0].stem}, …). Say which: --labels TABLE.csv, with columns "
                        "slide_id and label")  # fmt: skip
    return found[0]


def _stem(name: str) -> str:
    """A slide's name without its suffix (.svs, .ndpi, .h5 …), which tables often keep."""
    head, dot, tail = name.rpartition(".")
    return head if dot and tail.isalnum() and len(tail) <= 5 and not tail.isdigit() else name


def _name_column(columns: dict[str, np.ndarray], names: set[str]) -> str | None:
    """The column in which most of the slides' names stand; None if fewer than half of them stand in any."""
    known = {name: len(names & {n for v in values.tolist() for n in (v, _stem(v))}) for name, values in columns.items()}
    best = max(known, key=known.get)
    return best if 2 * known[best] >= len(names) else None


def _slide_facts(
    table: Path, columns: dict[str, np.ndarray], names: list[str], wanted: Wanted
) -> tuple[dict, Card, list[str]]:
    """target, groups and split of the slides in the order of `names`."""
    by = _name_column(columns, set(names))
    label = wanted.labels if wanted.labels in columns else role(columns, "labels", "bag labels", but=(by,))
    if label is None:
        raise ReadError(f"{table.name}: no column of labels (found: {', '.join(columns)}). Call it 'label', or pass "
                        "--labels COLUMN")  # fmt: skip
    row = {key: i for i, v in reversed([*enumerate(columns[by].tolist())]) for key in (v, _stem(v))}
    place = np.array([row.get(name, -1) for name in names])
    if len({*place[place >= 0].tolist()}) < len(place[place >= 0]):
        raise ReadError(f"{table.name}: two files have the name of one row of '{by}'. Rename them")

    def of(column: str) -> np.ndarray:
        return np.where(place >= 0, columns[column][place], "")

    target, classes, notes = encode_labels(_signed(of(label)), (), f"{table.name}: '{label}'")
    group = wanted.group or role(columns, "groups", but=(by, label))
    facts: dict = {"target": target}
    notes += [f"labels from {table.name}: {label} by {by}", f"{int((place < 0).sum())} bags without a row"]
    if group is not None:
        if group not in columns:
            raise ReadError(f"{table.name}: no column '{group}' (found: {', '.join(columns)})")
        facts["groups"], note = encode_groups(of(group), f"{table.name}: '{group}'")
        notes.append(f"groups from {group}{note}")
    if (split := role(columns, "split", but=(by, label))) is not None:
        facts["split"], note = encode_split(_signed(of(split)), f"{table.name}: '{split}'")
        notes.append(f"split from {split}{note}")
    return facts, Card(classes=classes), [n for n in notes if not n.startswith("0 ")]


def _signed(text: np.ndarray) -> np.ndarray:
    """Numbers where all cells are, else the text."""
    try:
        return numbers(text)
    except ValueError:
        return text


# ---- torchmil: a folder each for features, labels, instance labels and coordinates, one array a bag


def _fits_torchmil(path: Path) -> bool:
    return _torchmil_folder(path, "labels") is not None and _features_folders(path) != []


@reader(".npy", ".h5", folder=True, fits=_fits_torchmil)
def torchmil(path: Path, wanted: Wanted) -> Dataset:
    """Folder of torchmil: features/, labels/, inst_labels/ and coords/ with one array (.npy or .h5) a bag, and
    splits.csv of bag_name and split."""
    folders = _features_folders(path)
    files = _one_encoder(path, {p for f in folders for p in f.glob("*") if p.suffix in (".npy", ".h5")}, wanted.images)
    labels = [_beside(path, p, "labels") for p in files]
    if missing := [p.stem for p, v in zip(files, labels, strict=True) if v is None]:
        raise ReadError(f"{path}: {len(missing)} bags have no file in labels/ ({missing[0]}, …). Add or remove them")
    values = np.stack([np.atleast_1d(np.squeeze(v)) for v in labels])
    target, classes, notes = encode_labels(values, (), f"{path.name}/labels")
    beside = {part: [next((v for k in keys if (v := _beside(path, p, k)) is not None), None) for p in files]
              for part, keys in _PARTS.items()}  # fmt: skip
    looked = [_look(p) if p.suffix == ".h5" else _Bag(_mapped(p).shape, _mapped(p).dtype) for p in files]
    bags = [replace(bag, **{part: values[i] for part, values in beside.items()}) for i, bag in enumerate(looked)]
    facts = {"target": target} | _torchmil_split(path, files)
    return _dataset(path, files, bags, facts, Card(classes=classes), notes)


def _torchmil_folder(path: Path, name: str) -> Path | None:
    return next((p for p in (path / name, path / f"bag_{name}") if p.is_dir()), None)


def _features_folders(path: Path) -> list[Path]:
    """Folders called features… that hold arrays themselves."""
    return [p for p in sorted(path.glob("features*")) + sorted(path.glob("features*/*"))
            if p.is_dir() and any(f.suffix in (".npy", ".h5") for f in p.iterdir())]  # fmt: skip


def _beside(path: Path, bag: Path, name: str) -> np.ndarray | None:
    """A bag's array in the folder of that name, if there is one."""
    folder = _torchmil_folder(path, name)
    found = folder and next((p for p in (folder / f"{bag.stem}.npy", folder / f"{bag.stem}.h5") if p.is_file()), None)
    return None if not found else np.array(_mapped(found))


def _mapped(path: Path) -> np.ndarray:
    """The array of a file, mapped and not read where it is .npy."""
    if path.suffix == ".h5":
        with _opened(path) as file:
            return file[next(iter(file))][()]
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ReadError(f"{path.name}: not a plain array ({str(error)[:80]}). Save it again with numpy.save") from error


def _torchmil_split(path: Path, files: list[Path]) -> dict:
    if not (path / "splits.csv").is_file():
        return {}
    columns = read_columns(path / "splits.csv")
    by = _name_column(columns, {p.stem for p in files})
    if by is None or "split" not in columns:
        raise ReadError(f"{path / 'splits.csv'}: expected the columns bag_name and split, one row for each bag")
    of = dict(zip(columns[by].tolist(), columns["split"].tolist(), strict=True))
    return {"split": encode_split(_signed(np.array([of.get(p.stem, "") for p in files])), "splits.csv: 'split'")[0]}


# ---- what both have in common


def _dataset(
    path: Path, files: list[Path], bags: list[_Bag], facts: dict, card: Card, notes: list[str]
) -> Dataset:
    """The bags of all files as one dataset; those without instances are left out."""
    sizes = np.array([bag.shape[0] for bag in bags])
    if (empty := sizes == 0).any():
        notes = [*notes, f"{empty.sum()} bags without instances left out"]
        facts = {name: None if v is None else v[~empty] for name, v in facts.items()}
        files, bags = ([v for v, e in zip(values, empty, strict=True) if not e] for values in (files, bags))
        sizes = sizes[~empty]
    odd = next((i for i, bag in enumerate(bags) if bag.shape[1:] != bags[0].shape[1:]), None)
    if odd is not None:
        raise ReadError(f"{files[odd].name}: instances of shape {bags[odd].shape[1:]}, in {files[0].name} of "
                        f"{bags[0].shape[1:]}. Features of one encoder are needed")  # fmt: skip
    axes = find_axes([bag.shape for bag in bags], bags[0].dtype, files[0].name)
    facts |= {part: joined for part in _PARTS if (joined := _joined(files, bags, part)) is not None}
    if facts.get("instance_target") is not None:
        facts["instance_target"] = encode_labels(facts["instance_target"], (), f"{path.name}: instance labels")[0]
    of = np.repeat(np.arange(len(files)), sizes)
    notes = [f"bags from {len(files)} files, {files[0].name} first, axes {axes.letters}", *notes]
    return Dataset(path.name, BagFiles(files, sizes, axes), bags=of, card=card, assumptions=tuple(notes), **facts)


def _joined(files: list[Path], bags: list[_Bag], part: str) -> np.ndarray | None:
    """A value for each instance of all bags, -1 where a bag has none; None where no bag has any."""
    values = [getattr(bag, part) for bag in bags]
    if all(v is None for v in values) or (part == "coordinates" and any(v is None for v in values)):
        return None
    parts = []
    for file, bag, value in zip(files, bags, values, strict=True):
        value = np.full(bag.shape[0], UNLABELLED) if value is None else np.squeeze(value, axis=0) if (
            value.ndim > 1 and value.shape[0] == 1 != bag.shape[0]) else value  # fmt: skip
        value = value.reshape(len(value), -1) if part == "coordinates" else value.reshape(-1)
        if len(value) != bag.shape[0]:
            raise ReadError(f"{file.name}: {len(value)} {part.replace('_', ' ')} for {bag.shape[0]} instances")
        parts.append(value)
    return np.concatenate(parts)
