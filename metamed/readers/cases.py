"""Folders of images with masks, or of volumes: nnU-Net's raw layout, the Decathlon's dataset.json, pairs by name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metamed.dataset import Card, Dataset
from metamed.errors import ReadError
from metamed.readers.encodings import PARTS, text
from metamed.readers.layouts import Wanted
from metamed.readers.masks import FileMasks, Known, found_in, lossy_note
from metamed.readers.pictures import SUFFIXES as PICTURES
from metamed.readers.pictures import files_in, open_files
from metamed.readers.registry import reader
from metamed.readers.volumes import Header, VolumeImages, VolumeMasks, common_shape, is_volume, matching

VOLUMES = (".nii", ".gz")  # what a path has as its suffix; `is_volume` looks at the whole name
_IMAGE_WORDS = {"image", "images", "img", "imgs", "imagestr", "imagests", "scan", "scans", "im", "orig", "original"}
_MASK_WORDS = {"mask", "masks", "label", "labels", "labelstr", "seg", "segs", "segmentation", "segmentations", "gt",
               "groundtruth", "annotation", "annotations", "manual", "labelsts"}  # fmt: skip
_MR = re.compile(r"^(t1|t2|flair|dwi|adc|swi|pd)", re.I)


@dataclass(frozen=True)
class Case:
    """A sample: the files of its channels, its mask if there is one, and the part of a split that it lies in."""

    images: tuple[Path, ...]
    mask: Path | None = None
    part: int | None = None


# ---- dataset.json


def _described(path: Path) -> dict[str, Any] | None:
    """What dataset.json says; None where there is none. Raises ReadError for one that is not JSON."""
    file = path / "dataset.json"
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ReadError(f"{file}: not JSON ({error})") from None
    return said if isinstance(said, dict) else None


def _is_decathlon(path: Path) -> bool:
    said = _described(path)
    return said is not None and isinstance(said.get("training"), list) and "labels" in said


def _is_nnunet(path: Path) -> bool:
    said = _described(path)
    return said is not None and "labels" in said and (path / "imagesTr").is_dir()


@reader(*VOLUMES, *PICTURES, folder=True, fits=_is_decathlon)
def decathlon(path: Path, wanted: Wanted) -> Dataset:
    """Medical Segmentation Decathlon: a folder with dataset.json, whose `training` lists each image and its label."""
    said, cases = _described(path), []
    for row in said["training"]:
        pair = (row.get("image"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not all(isinstance(name, str) for name in pair):
            raise ReadError(f"{path / 'dataset.json'}: 'training' holds {str(row)[:60]}; expected image and label")
        image, mask = (path / name for name in pair)
        cases.append(Case(_channels(image), _there(mask, "listed in dataset.json")))
    return _dataset(path, cases, wanted, said)


@reader(*VOLUMES, *PICTURES, folder=True, fits=_is_nnunet)
def nnunet(path: Path, wanted: Wanted) -> Dataset:
    """nnU-Net raw folder: dataset.json, imagesTr/CASE_0000.nii.gz (or .png) a channel, labelsTr/CASE.nii.gz."""
    said, found = _described(path), {}
    for file in files_in(path / "imagesTr"):
        if match := re.fullmatch(r"(.+)_(\d{4})(\.nii\.gz|\.\w+)", file.name):
            found.setdefault((match[1], match[3]), []).append(file)
    if not found:
        raise ReadError(f"{path / 'imagesTr'}: no file called CASE_0000 and so on. nnU-Net names channels so")
    labelled = (path / "labelsTr").is_dir()
    cases = []
    for (case, suffix), files in sorted(found.items()):
        mask = _there(path / "labelsTr" / f"{case}{suffix}", f"the mask of {files[0].name}") if labelled else None
        cases.append(Case(tuple(files), mask))
    return _dataset(path, cases, wanted, said)


def _is_dataset_json(path: Path) -> bool:
    return path.name == "dataset.json" and (_is_decathlon(path.parent) or _is_nnunet(path.parent))


@reader(".json", fits=_is_dataset_json)
def dataset_json(path: Path, wanted: Wanted) -> Dataset:
    """dataset.json of the Decathlon or of nnU-Net: the folder that it lies in."""
    return (decathlon if _is_decathlon(path.parent) else nnunet)(path.parent, wanted)


def _channels(image: Path) -> tuple[Path, ...]:
    """The file itself, or the files of its channels as nnU-Net names them."""
    if image.is_file():
        return (image,)
    stem, suffix = _parted(image.name)
    found = tuple(sorted(image.parent.glob(f"{stem}_[0-9][0-9][0-9][0-9]{suffix}")))
    return found or (_there(image, "listed in dataset.json"),)


def _there(path: Path, what: str) -> Path:
    if not path.is_file():
        raise ReadError(f"{path}: no such file, {what}. Add it, or take the case out")
    return path


def _parted(name: str) -> tuple[str, str]:
    """Stem and suffix of a file name, .nii.gz being one suffix."""
    cut = len(name) - 7 if name.lower().endswith(".nii.gz") else len(name) - len(Path(name).suffix)
    return name[:cut], name[cut:]


# ---- pairs by name


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[_\-. ]+", name.lower()) if w]


def _role(place: Path) -> tuple[bool, tuple[str, ...]]:
    """(is it a mask?, what it shares with its partner) of a file below the folder: folders and stem without roles."""
    stem = _parted(place.name)[0]
    words, folders = _words(stem), [folder.lower() for folder in place.parts[:-1]]
    own = [w for w in (words[:1] + words[-1:]) if w in _MASK_WORDS]
    is_mask = bool(own) or any(set(_words(folder)) & _MASK_WORDS for folder in folders)
    roles = _IMAGE_WORDS | _MASK_WORDS
    if len(words) > 1:
        words = words[1:] if words[0] in roles else words
        words = words[:-1] if len(words) > 1 and words[-1] in roles else words
    elif words and words[0] in roles:
        words = []
    return is_mask, (*(f for f in folders if not set(_words(f)) & roles), "_".join(words))


def _cases_in(path: Path, files: list[Path]) -> list[Case]:
    """Images with the masks of their names; images alone if there is no mask. Raises ReadError for one without."""
    images, masks = {}, {}
    for file in files:
        is_mask, key = _role(file.relative_to(path))
        (other := masks if is_mask else images).setdefault(key, file)
        if other[key] != file:
            kind = "masks" if is_mask else "images"
            raise ReadError(f"{path}: {other[key].name} and {file.name} are both {kind} of one case. "
                            "Use nnU-Net's layout for several channels")  # fmt: skip
    if masks:
        if alone := sorted(set(images) - set(masks)):
            raise ReadError(f"{images[alone[0]]}: has no mask, as {len(alone)} of {len(images)} images. Add an empty "
                            "mask if there is nothing to see, else take the image out")  # fmt: skip
        if alone := sorted(set(masks) - set(images)):
            raise ReadError(f"{masks[alone[0]]}: a mask without an image, as {len(alone)} of {len(masks)}")
    return [Case((image,), masks.get(key), _part(key)) for key, image in sorted(images.items())]


def _part(key: tuple[str, ...]) -> int | None:
    return next((PARTS[folder] for folder in key[:-1] if folder in PARTS), None)


def _of(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [p for p in files_in(path) if p.suffix.lower() in suffixes and (suffixes != VOLUMES or is_volume(p))]


def _is_paired(path: Path) -> bool:
    """Does any image have a mask by its name?"""
    roles = [_role(file.relative_to(path)) for file in _of(path, PICTURES)]
    return bool({key for is_mask, key in roles if is_mask} & {key for is_mask, key in roles if not is_mask})


@reader(*PICTURES, folder=True, fits=_is_paired)
def image_masks(path: Path, wanted: Wanted) -> Dataset:
    """Folder of images and masks: images/A.png with masks/A.png, or A.png with A_mask.png; train/, val/, test/ too."""
    return _dataset(path, _cases_in(path, _of(path, PICTURES)), wanted, {})


@reader(*VOLUMES, folder=True, fits=lambda path: bool(_of(path, VOLUMES)))
def nifti(path: Path, wanted: Wanted) -> Dataset:
    """Folder of NIfTI volumes, alone or with masks: images/A.nii.gz, masks/A.nii.gz, or A.nii.gz, A_seg.nii.gz."""
    return _dataset(path, _cases_in(path, _of(path, VOLUMES)), wanted, {})


# ---- cases as a dataset


def _dataset(path: Path, cases: list[Case], wanted: Wanted, said: dict[str, Any]) -> Dataset:
    if wanted.any_key:
        raise ReadError(f"{path}: a folder of images has no keys. Leave out --images, --labels and --group")
    if len(cases) < 2:
        raise ReadError(f"{path}: holds {len(cases)} image; at least 2 are needed")
    path = path.absolute()
    known = Known.of(said["labels"], f"{path.name}/dataset.json") if said else None
    volumes = is_volume(cases[0].images[0])
    images, masks, known, spacing, notes = (_volumes if volumes else _pictures)(path, cases, known)
    parts = [case.part for case in cases]
    split = np.array(parts, np.int8) if None not in parts else None
    name = text(said.get("name")) or path.name
    classes = known.names if known is not None else ()
    card = Card(_modality(said), classes=classes, spacing=spacing, license=text(said.get("licence")))
    if (path / "imagesTs").is_dir() and said:
        notes.append("images in imagesTs have no masks here and are left out")
    paired = "each with its mask" if masks is not None else "no masks"
    notes.insert(0, f"{len(cases)} {'volumes' if volumes else 'images'}, {paired}; no patients known")
    return Dataset(name, images, split=split, masks=masks, card=card, assumptions=tuple(notes))


def _volumes(path: Path, cases: list[Case], known: Known | None) -> tuple:
    """(images, masks, known values, spacing, notes) of cases in NIfTI files."""
    headers = [[Header.of(file) for file in case.images] for case in cases]
    shape, spacing, notes = common_shape(headers)
    images = VolumeImages(headers, shape)
    if cases[0].mask is None:
        return images, None, known, spacing, notes
    of_masks, first = [Header.of(case.mask) for case in cases], [case[0] for case in headers]
    matching(first, of_masks)
    if turned := sum(not np.array_equal(a.turn, b.turn) for a, b in zip(first, of_masks, strict=True)):
        notes.append(f"{turned} masks say another orientation than their images, whose orientation is taken")
    if known is None:
        known, more = found_in(VolumeMasks(of_masks, first, shape[1:], None), path.name)
        notes += more
    return images, VolumeMasks(of_masks, first, shape[1:], known), known, spacing, notes


def _pictures(path: Path, cases: list[Case], known: Known | None) -> tuple:
    """(images, masks, known values, spacing, notes) of cases in image files."""
    if several := next((case for case in cases if len(case.images) > 1), None):
        raise ReadError(f"{several.images[1]}: a second channel in a file of its own. Write the channels as one RGB "
                        "file, or as NIfTI")  # fmt: skip
    images, notes = open_files([case.images[0] for case in cases])
    if cases[0].mask is None:
        return images, None, known, (), notes
    paths = [case.mask for case in cases]
    sizes = images.sizes if images.sizes is not None else np.tile(images.shape[2:], (len(cases), 1))
    if known is None:
        known, more = found_in(FileMasks(paths, sizes, images.shape[2:]), path.name)
        notes += more
    return images, FileMasks(paths, sizes, images.shape[2:], known), known, (), [*notes, *lossy_note(paths)]


def _modality(said: dict[str, Any]) -> str:
    """What dataset.json says of the channels, MRI where they are sequences of it."""
    channels = said.get("channel_names") or said.get("modality") or {}
    names = [text(v) for v in channels.values()] if isinstance(channels, dict) else [text(channels)]
    words = " + ".join(dict.fromkeys(filter(None, names)))
    return f"MRI ({words})" if any(_MR.match(n) for n in names) else words
