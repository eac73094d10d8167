"""What the named arrays of a file mean: which are images, labels, masks, bags or patients, and how each is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from metamed.dataset import Card, Dataset, Images
from metamed.errors import ReadError
from metamed.readers.answers import in_archive, with_answers
from metamed.readers.encodings import (
    PARTS,
    Axes,
    class_names,
    encode_bags,
    encode_groups,
    encode_labels,
    encode_masks,
    encode_split,
    find_axes,
    mask_axes,
    plain,
    text,
)

# role -> names that an array of that role has, the preferred first; compared in lower case
ROLES = {
    "images": ("images", "image", "x", "data", "imgs", "img", "cxr", "features"),
    "labels": ("labels", "label", "y", "target", "targets"),
    "masks": ("masks", "mask", "segmentations", "segmentation"),
    "bags": ("bag_ids", "bag_id", "bags", "bag", "slide_id"),
    "bag labels": ("bag_labels", "bag_label", "bag_target"),
    "bag names": ("bag_names",),
    "groups": ("patient_id", "patient_ids", "patientid", "patient", "patients", "subject_id", "subject", "group",
               "groups", "group_id", "case_id", "bag_group", "slide_id"),
    "split": ("split",),
    "class names": ("class_names", "label_names", "classes"),
    "instance labels": ("instance_labels", "instance_label"),
    "coordinates": ("coordinates", "coords", "centre_xy", "patch_xy"),
    "spacing": ("spacing", "pixel_spacing"),
}  # fmt: skip
_WORDS = {"images": {"image", "images", "img", "imgs"}, "labels": {"label", "labels", "target", "targets"},
          "split": {"split"}}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What the user said about a file: keys of the arrays, and the kind of learning where more than one fits.

    condition: the column that tells the condition of each answer in tables of answers.
    """

    images: str | None = None
    labels: str | None = None
    group: str | None = None
    kind: str | None = None
    condition: str | None = None

    @property
    def any_key(self) -> bool:
        return any((self.images, self.labels, self.group))


@dataclass(frozen=True)
class Archive:
    """Named arrays and attributes: what an HDF5 or npz file is before anybody says what it means.

    arrays: key -> anything with `shape`, `dtype` and `[()]`. open: keys, axes and mask values -> lazy images or masks.
    """

    path: Path
    arrays: Mapping[str, Any]
    attributes: Mapping[str, Any]
    open: Callable[[tuple[str, ...], Axes, np.ndarray | None], Images]


@dataclass
class _Layout:
    """An archive with its keys sorted by what they are called and which part of a split they belong to."""

    archive: Archive
    wanted: Wanted
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    bases: dict[str, dict[int | None, str]] = field(default_factory=dict)
    folder: str = ""  # of the images: companions in the same folder are meant before others
    kept: np.ndarray | None = None  # places of the bags that have instances, among those that the labels are given for

    def __post_init__(self):
        for key in self.archive.arrays:
            part, base = _part_of(key)
            self.bases.setdefault(base, {}).setdefault(part, key)

    def error(self, message: str) -> ReadError:
        return ReadError(f"{self.archive.path.name}: {message}")

    def where(self, *keys: str) -> str:
        return f"{self.archive.path.name}: '{' + '.join(keys)}'"

    def find(self, role: str, asked: str | None = None) -> dict[int | None, str] | None:
        """Part -> key of the array in that role; {None: key} where the file is not divided. None if there is none."""
        if asked is not None:
            return self._asked(asked, role)
        for name in ROLES[role]:
            if name in self.bases:
                return self._take(self.bases[name])
            inside = [b for b in self.bases if b.endswith("/" + name)]
            inside = [b for b in inside if b == f"{self.folder}/{name}"] or inside
            if len(inside) > 1:
                names = ", ".join(inside[:3])
                first = self.command(images=inside[0] if role == "images" else None)
                raise self.error(f"{len(inside)} arrays '{name}' ({names}, …). Stack them, or say which: {first}")
            if inside:
                return self._take(self.bases[inside[0]])
        return None

    def longer(self, role: str, fits: Callable[[tuple[int, ...]], bool]) -> dict[int | None, str] | None:
        """The one array whose longer name holds the role's word (`image_labels`); an error if there are several."""
        near = {b: keys for b, keys in self.bases.items() if _WORDS[role] & set(re.split(r"[_/\-]", b))
                and all(fits(self.archive.arrays[k].shape) for k in keys.values())}  # fmt: skip
        if len(near) > 1:
            names = " or ".join(f"'{b}'" for b in near)
            raise self.error(f"{role} could be {names}. Try: {self.command(**{role: next(iter(near))})}")
        for keys in near.values():
            return self._take(keys)
        return None

    def _asked(self, key: str, role: str) -> dict[int | None, str]:
        if key in self.archive.arrays:
            self.used.add(key)
            return {None: key}
        if key.lower() in self.bases:
            return self._take(self.bases[key.lower()])
        near = get_close_matches(key, self.archive.arrays, n=1)
        raise self.error(f"no array '{key}' for the {role}" + (f" (did you mean '{near[0]}'?)" if near else "")
                         + f". Found: {self.found()}")  # fmt: skip

    def _take(self, keys: dict[int | None, str]) -> dict[int | None, str]:
        keys = {None: keys[None]} if None in keys else dict(sorted(keys.items()))
        self.used.update(keys.values())
        return keys

    def values(self, keys: dict[int | None, str], like: dict[int | None, str] | None = None) -> np.ndarray:
        """The arrays of all parts, one after the other. `like`: keys whose parts they must match."""
        if like is not None and set(keys) != set(like):
            one, other = (", ".join(f"'{k}'" for k in d.values()) for d in (like, keys))
            raise self.error(f"{one} and {other} are not divided alike. Name the arrays with --images and --labels")
        if len({self.archive.arrays[k].shape[1:] for k in keys.values()}) > 1:
            raise self.error(f"{', '.join(map(repr, keys.values()))} differ in shape. Write all parts alike")
        return np.concatenate([np.atleast_1d(plain(self.archive.arrays[k][()], self.where(k))) for k in keys.values()])

    def found(self) -> str:
        """The arrays as one line: `'img' (1600,64,64,3) uint8, 'grade' (1600,) int64`."""
        arrays = sorted(self.archive.arrays.items(), key=lambda item: -len(item[1].shape))  # images first
        lines = [f"'{k}' {describe(a.shape, a.dtype)}" for k, a in arrays[:12]]
        return (", ".join(lines) or "nothing") + (f" and {len(arrays) - 12} more" if len(arrays) > 12 else "")

    def command(self, images: str | None = None, labels: str | None = None) -> str:
        """A command to paste, with the arrays that look right put in where nothing better is known."""
        shapes = {k: a.shape for k, a in self.archive.arrays.items()}
        images = images or max(shapes, key=lambda k: len(shapes[k]), default="KEY")
        n = (*shapes.get(images, ()), None)[0]
        labels = labels or next((k for k, s in shapes.items() if s in ((n,), (n, 1)) and k != images), "KEY")
        path = str(self.archive.path)
        quoted = f'"{path}"' if " " in path else path
        return f"metamed recommend --dataset {quoted} --images {images} --labels {labels}"


def _part_of(key: str) -> tuple[int | None, str]:
    """(part of the split, name without it) of a key: `x_train`, `train_x` and `train/x` are all (0, "x")."""
    *folders, leaf = key.lower().split("/")
    for folder in folders:
        if folder in PARTS:
            return PARTS[folder], "/".join([f for f in folders if f != folder] + [leaf])
    words = "|".join(PARTS)
    match = re.fullmatch(rf"(?:(?P<a>{words})[_-](?P<x>.+))|(?:(?P<y>.+)[_-](?P<b>{words}))", leaf)
    if match is None:
        return None, "/".join([*folders, leaf])
    return PARTS[match["a"] or match["b"]], "/".join([*folders, match["x"] or match["y"]])


def describe(shape: tuple[int, ...], dtype: np.dtype) -> str:
    kind = "text" if np.dtype(dtype).kind in "OSU" else str(dtype)
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''}) {kind}"


def interpret(archive: Archive, wanted: Wanted) -> Dataset:
    """The dataset that an archive holds. Raises ReadError where there is no image array or more than one reading."""
    layout = _Layout(archive, wanted)
    _refuse_known(layout)
    at = layout.find("images", wanted.images) or layout.longer("images", lambda s: len(s) >= 3)
    if at is None:
        raise layout.error(f"has no image array. Found: {layout.found()}. Try: {layout.command()}")
    layout.folder = _part_of(next(iter(at.values())))[1].rpartition("/")[0]
    images = _open_images(layout, at)
    card = _card(layout)
    facts = _targets(layout, at, images, card)
    card = facts.pop("card")
    n_samples = len(images) if facts.get("bags") is None else len(np.unique(facts["bags"]))
    facts |= _companions(layout, at, n_samples, facts.get("bags"), len(images))
    own = in_archive(layout, len(images), condition=wanted.condition)
    facts |= with_answers(archive.path, len(images), own, layout.notes, wanted.condition)
    unused = [k for k in archive.arrays if k not in layout.used]
    if unused:
        layout.notes.append("not used: " + ", ".join(f"'{k}'" for k in unused[:10]) + ("…" if unused[10:] else ""))
    name = text(archive.attributes.get("name")) or archive.path.stem
    return Dataset(name, images, **facts, card=card, assumptions=tuple(layout.notes))


def _refuse_known(layout: _Layout) -> None:
    """Well-known layouts that are something else than a dataset of images."""
    keys = set(layout.archive.arrays)
    if "kspace" in keys:
        raise layout.error("holds raw MRI k-space (fastMRI). Reconstruct it into 'images' with 'labels' first")
    if "coords" in keys and keys & {"features", "imgs", "img"} and not keys & {*ROLES["bags"], *ROLES["labels"]}:
        raise layout.error("holds one slide's patches (CLAM, TRIDENT), one bag. Give the folder of the slides, with a "
                           "table (CSV) of slide_id and label in it")  # fmt: skip
    if len(keys) > 50 and all(a.shape in ((), (1,)) or a.dtype.kind in "OSV" for a in layout.archive.arrays.values()):
        raise layout.error("holds encoded image files, one a key (ISIC 2024), and no labels. Decode them into "
                           "one array 'images' with 'labels' beside it")  # fmt: skip


def _open_images(layout: _Layout, at: dict[int | None, str]) -> Images:
    arrays, keys = [layout.archive.arrays[k] for k in at.values()], tuple(at.values())
    masks = layout.find("masks") or layout.find("labels", layout.wanted.labels)
    mask = layout.archive.arrays[next(iter(masks.values()))] if masks else None
    if mask is not None and len(mask.shape) == 2 and mask.shape == arrays[0].shape and "im" in keys[0].lower():
        raise layout.error(f"holds one image and its mask ({describe(arrays[0].shape, arrays[0].dtype)}). Stack the "
                           "images of all such files into one file with 'images' and 'masks'")  # fmt: skip
    axes = find_axes([a.shape for a in arrays], arrays[0].dtype, layout.where(*keys))
    if axes.shape[0] < 2:
        raise layout.error(f"'{keys[0]}' holds {axes.shape[0]} images; at least 2 are needed")
    layout.notes.append("; ".join(filter(None, (f"images from {' + '.join(keys)}, axes {axes.letters}", axes.note))))
    return layout.archive.open(keys, axes, None)


def _targets(layout: _Layout, at: dict, images: Images, card: Card) -> dict[str, Any]:
    """target, masks or bags, and the card with class names: what the file can teach, by kind."""
    bags, masks = layout.find("bags"), layout.find("masks")
    kind = layout.wanted.kind
    if bags is not None and kind in (None, "mil") and not (kind is None and _tiles(layout, at, bags)):
        return _mil(layout, at, bags, images, card)
    if masks is not None and kind in (None, "segmentation") and layout.wanted.labels is None:
        if (unused := layout.find("labels")) is not None:
            layout.notes.append(f"masks before labels; --kind classification learns from {' + '.join(unused.values())}")
        return _segmentation(layout, at, masks, images, card)
    labels = layout.find("labels", layout.wanted.labels) or layout.longer(
        "labels", lambda s: 0 < len(s) <= 2 and (len(at) > 1 or s[0] == len(images))
    )
    if labels is None:
        known = {*ROLES["groups"], *ROLES["split"]}
        fitting = [k for k, a in layout.archive.arrays.items()
                   if a.shape in ((len(images),), (len(images), 1)) and k.lower() not in known]  # fmt: skip
        fitting.sort(key=lambda k: layout.archive.arrays[k].dtype.kind not in "biu")  # text is rather an id
        hint = f"; if it is one of {', '.join(fitting[:4])}, say --labels {fitting[0]}" if fitting else ""
        layout.notes.append("no label array" + hint)
        return {"card": card}
    shape = layout.archive.arrays[next(iter(labels.values()))].shape
    if len(shape) >= 3 and np.prod(shape) > shape[0] and kind != "classification":
        layout.notes.append(f"{' + '.join(labels.values())} has the shape of the images: masks")
        return _segmentation(layout, at, labels, images, card)
    return _classification(layout, layout.values(labels, like=at), " + ".join(labels.values()), len(images), card)


def _classification(layout: _Layout, values: np.ndarray, key: str, n: int, card: Card) -> dict[str, Any]:
    if len(values) != n:
        raise layout.error(f"'{key}' has {len(values)} entries, expected {n}")
    target, classes, notes = encode_labels(values, card.classes, layout.where(key))
    layout.notes += [f"labels from {key}", *notes]
    return {"target": target, "card": replace(card, classes=classes)}


def _segmentation(layout: _Layout, at: dict, keys: dict, images: Images, card: Card) -> dict[str, Any]:
    arrays = [layout.archive.arrays[k] for k in keys.values()]
    if set(keys) != set(at):
        layout.values(keys, like=at)  # raises
    where = layout.where(*keys.values())
    axes = mask_axes([a.shape for a in arrays], arrays[0].dtype, images.shape, where)
    masks = layout.archive.open(tuple(keys.values()), axes, None)
    values, note = encode_masks(masks, card.classes, where)
    if values is not None:
        masks = layout.archive.open(tuple(keys.values()), axes, values)
        card = card if len(card.classes) == len(values) else replace(card, classes=tuple(map(str, values)))
    layout.notes += [f"masks from {' + '.join(keys.values())}", *([note] if note else [])]
    return {"masks": masks, "card": card}


def _mil(layout: _Layout, at: dict, keys: dict, images: Images, card: Card) -> dict[str, Any]:
    if set(at) != {None} or set(keys) != {None}:
        raise layout.error("bags divided into train and test arrays. Join them into one array and add 'split' per bag")
    ids, names = layout.values(keys), layout.find("bag names")
    if len(ids) != len(images):
        raise layout.error(f"'{keys[None]}' has {len(ids)} entries, expected {len(images)}, one an instance")
    given = layout.find("labels", layout.wanted.labels) if layout.wanted.labels else layout.find("bag labels")
    given = given or layout.find("labels")
    labels = None if given is None else layout.values(given)
    order = None if names is None else layout.values(names)
    bags, kept, note = encode_bags(ids, order, len(images) if labels is None else len(labels), layout.where(keys[None]))
    layout.notes += [f"bags from {keys[None]}", *([note] if note else [])]
    facts: dict[str, Any] = {"bags": bags, "card": card}
    if labels is not None:
        key, n_bags = " + ".join(given.values()), int(bags.max()) + 1
        if len(labels) == len(images) != n_bags:
            labels = _one_per_bag(layout, labels, key, bags, "bag labels")
        elif kept is not None and len(labels) > kept.max():
            labels, layout.kept = labels[kept], kept if len(labels) > n_bags else None
        facts |= _classification(layout, labels, key, n_bags, card)
    if (instance := layout.find("instance labels")) is not None:
        facts["instance_target"] = encode_labels(layout.values(instance), (), layout.where(instance[None]))[0]
    if (place := layout.find("coordinates")) is not None:
        facts["coordinates"] = layout.values(place)
    return facts


def _tiles(layout: _Layout, at: dict, bags: dict) -> bool:
    """Whether each image has a label of its own, so that `slide_id` or the like only groups them."""
    labels = layout.find("labels", layout.wanted.labels)
    if labels is None or set(labels) != set(at) or set(bags) != set(at) or layout.find("bag labels") is not None:
        return False
    ids, values = layout.values(bags), layout.values(labels)
    if len(ids) != len(values) or ids.size != len(ids) or values.size != len(values):
        return False
    pairs = {*zip(ids.ravel().tolist(), values.ravel().tolist(), strict=True)}
    return len(pairs) > len(np.unique(ids))


def _one_per_bag(layout: _Layout, values: np.ndarray, key: str, bags: np.ndarray, what: str) -> np.ndarray:
    """Values given per instance as one value per bag; they must agree within a bag."""
    first = np.unique(bags, return_index=True)[1]
    per_bag = values[first]
    if not np.array_equal(per_bag[bags], values):
        raise layout.error(f"'{key}' differs within a bag: {what} need one value a bag ({len(first)} of them)")
    return per_bag


def _companions(layout: _Layout, at: dict, n: int, bags: np.ndarray | None, n_images: int) -> dict[str, Any]:
    """groups and split."""
    facts: dict[str, Any] = {}

    def per_sample(keys: dict, what: str) -> np.ndarray:
        values, key = layout.values(keys, like=at), " + ".join(keys.values())
        if bags is not None and len(values) == n_images != n:
            return _one_per_bag(layout, values, key, bags, what)
        if layout.kept is not None and len(values) > layout.kept.max():
            return values[layout.kept]
        if len(values) != n:
            raise layout.error(f"'{key}' has {len(values)} entries, expected {n}")
        return values

    groups = layout.find("groups", layout.wanted.group)
    if groups is not None and (bags is None or groups != layout.find("bags")):
        facts["groups"], note = encode_groups(per_sample(groups, "groups"), layout.where(*groups.values()))
        layout.notes.append(f"groups from {' + '.join(groups.values())}{note}")
    split = layout.find("split") or layout.longer("split", lambda s: s == (n,))
    if None not in at:
        facts["split"] = np.concatenate([np.full(layout.archive.arrays[k].shape[0], p) for p, k in at.items()])
        layout.notes.append("the file is divided into " + ", ".join(at.values()) + ": its own split")
    elif split is not None:
        facts["split"], note = encode_split(per_sample(split, "split"), layout.where(*split.values()))
        layout.notes.append(f"split from {' + '.join(split.values())}{note}")
    return facts


def _card(layout: _Layout) -> Card:
    """What the attributes (and the small arrays for class names and spacing) say about the dataset."""
    attributes = {k.lower(): v for k, v in layout.archive.attributes.items()}

    def first(*names: str) -> Any:
        return next((attributes[n] for n in names if n in attributes), None)

    classes = class_names(first("classes", "class_names"))
    at = layout.find("class names")
    if not classes and at is not None and (names := layout.values(at)).dtype.kind == "U":
        classes = tuple(names.ravel().tolist())
    spacing = first("spacing", "pixel_spacing")
    if spacing is None and (at := layout.find("spacing")) is not None:
        spacing = layout.values(at)
    numbers = np.ravel(() if spacing is None else spacing)
    spacing = tuple(map(float, numbers)) if len(numbers) <= 3 and numbers.dtype.kind in "iuf" else ()
    say = {k: text(first(*names)) for k, names in {"modality": ("modality",), "organ": ("organ",), "url": ("url",),
           "license": ("licence", "license"), "family": ("family",)}.items()}  # fmt: skip
    return Card(classes=classes, spacing=spacing, **say)
