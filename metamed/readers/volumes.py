"""Volumes in NIfTI files, one a channel or with channels inside, brought to one orientation and one shape; and slices.

Axes are depth, height, width: those of the file's array in reverse order, turned to the nearest right-anterior-superior
orientation by the image's own affine, so that the planes across the depth are axial.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from metamed.dataset import Dataset, Images
from metamed.errors import MissingExtra, NotApplicable, ReadError
from metamed.readers.lazy import LazyImages, finite
from metamed.readers.masks import Known

SUFFIXES = (".nii", ".nii.gz")
_SAME = 1e-3  # share by which the voxel sizes of an image and its mask may differ


def is_volume(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


@dataclass(frozen=True, eq=False)
class Header:
    """shape: (C, D, H, W). spacing: millimetres, (D, H, W). turn: nibabel's orientation of the file's axes."""

    path: Path
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    turn: np.ndarray
    small: bool  # 8-bit without a scale

    @classmethod
    def of(cls, path: Path) -> Header:
        with _opened(path) as file:
            import nibabel

            turn = nibabel.io_orientation(file.affine)[:3]
            if len(file.shape) not in (2, 3, 4) or np.isnan(turn).any():
                raise ReadError(f"{path}: shape {file.shape} is not that of a volume; expected X,Y,Z or X,Y,Z,channels")
            sides = (*file.shape, 1)[:3]
            placed, zooms = np.empty(3, int), np.empty(3)
            placed[turn[:, 0].astype(int)] = sides
            zooms[turn[:, 0].astype(int)] = (*file.header.get_zooms(), 1.0)[:3]
            channels = file.shape[3] if len(file.shape) == 4 else 1
            small = file.get_data_dtype() == np.uint8 and file.dataobj.slope == 1 and file.dataobj.inter == 0
        return cls(path, (channels, *placed[::-1].tolist()), tuple(map(float, zooms[::-1])), turn, small)

    def load(self, turn: np.ndarray | None = None) -> np.ndarray:
        """The voxels (C, D, H, W), turned as another file is where `turn` says so."""
        with _opened(self.path) as file:
            import nibabel

            voxels = np.asarray(file.dataobj, None if self.small else np.float32)
            voxels = voxels.reshape(*(*voxels.shape, 1)[:3], -1)
            return np.ascontiguousarray(nibabel.apply_orientation(voxels, self.turn if turn is None else turn).T)


@contextmanager
def _opened(path: Path):
    """The NIfTI file, its voxels not read yet; whatever is wrong with it names it."""
    try:
        import nibabel
    except ImportError:
        raise MissingExtra("reading NIfTI files", "nibabel", "medical") from None
    try:
        yield nibabel.load(path)
    except (OSError, ValueError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        line = " ".join(str(error).split())[:120]
        raise ReadError(f"{path}: not a readable NIfTI file ({line}). Check that it was copied whole") from error


class VolumeImages(LazyImages):
    """Volumes (n, C, D, H, W): the files of each case are its channels, resampled to one shape."""

    def __init__(self, cases: list[list[Header]], shape: tuple[int, ...]):
        small = all(header.small and header.shape[1:] == shape[1:] for case in cases for header in case)
        super().__init__((len(cases), *shape), np.dtype(np.uint8 if small else np.float32))
        self.cases = cases

    def _read(self, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for row, case in enumerate(self.cases[start:stop]):
            block[row] = np.concatenate([resampled(header.load(), self.shape[2:]) for header in case])
            finite(block[row : row + 1], start + row, case[0].path.name)
        return block


class VolumeMasks(LazyImages):
    """Label volumes (n, D, H, W), turned as their images are; `known` holds the values that may occur, if said."""

    def __init__(self, masks: list[Header], images: list[Header], shape: tuple[int, ...], known: Known | None):
        super().__init__((len(masks), *shape), np.dtype(np.uint8 if known is not None else np.float32))
        self.masks, self.images, self.known = masks, images, known

    def _read(self, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for row in range(stop - start):
            values = self.masks[start + row].load(self.images[start + row].turn)[0]
            if self.known is not None:
                values = self.known.indices(values, self.masks[start + row].path)
            block[row] = resampled(values, self.shape[1:], nearest=True)
        return block


def matching(images: list[Header], masks: list[Header]) -> None:
    """Raises ReadError for the first mask that has not the shape or the voxel size of its image, or has channels."""
    for image, mask in zip(images, masks, strict=True):
        if mask.shape != (1, *image.shape[1:]):
            found, expected = ("x".join(map(str, h.shape[1:])) for h in (mask, image))
            extra = f" and {mask.shape[0]} channels" if mask.shape[0] > 1 else ""
            raise ReadError(f"{mask.path}: the mask has {found} voxels{extra}, its image {image.path.name} {expected}. "
                            "Resample it to the image")  # fmt: skip
        if not np.allclose(mask.spacing, image.spacing, rtol=_SAME):
            found, expected = (" x ".join(f"{v:g}" for v in h.spacing) for h in (mask, image))
            raise ReadError(f"{mask.path}: voxels of the mask measure {found} mm, those of its image "
                            f"{image.path.name} {expected} mm. Resample it to the image")  # fmt: skip


def common_shape(cases: list[list[Header]]) -> tuple[tuple[int, ...], tuple[float, ...], list[str]]:
    """((C, D, H, W) of the dataset, its spacing in mm, notes): the median side where volumes differ."""
    channels = [sum(header.shape[0] for header in case) for case in cases]
    if len(set(channels)) > 1:
        odd = cases[int(np.argmax(np.array(channels) != channels[0]))][0].path
        raise ReadError(f"{odd}: {channels[np.argmax(np.array(channels) != channels[0])]} channels, others have "
                        f"{channels[0]}. Give every case the same files")  # fmt: skip
    for case in cases:
        if len({header.shape[1:] for header in case}) > 1:
            raise ReadError(f"{case[0].path}: the channels of a case differ in shape. Resample them to one grid")
    sides = np.array([case[0].shape[1:] for case in cases])
    shape = np.median(sides, axis=0).round().astype(int)
    spacing = np.median([np.array(case[0].spacing) * side / shape for case, side in zip(cases, sides, strict=True)], 0)
    notes = []
    if len(np.unique(sides, axis=0)) > 1:
        low, high, middle = ("x".join(map(str, s)) for s in (sides.min(axis=0), sides.max(axis=0), shape))
        notes.append(f"volumes of {low} to {high} resampled to the median {middle}")
    return (channels[0], *shape.tolist()), tuple(round(float(s), 4) for s in spacing), notes


def resampled(volume: np.ndarray, shape: tuple[int, ...], nearest: bool = False) -> np.ndarray:
    """The last axes of a volume at `shape`: the nearest voxel, or linear between centres, one axis after the other."""
    first = volume.ndim - len(shape)
    for axis, side in enumerate(shape, first):
        if (size := volume.shape[axis]) == side:
            continue
        place = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
        if nearest:
            volume = np.take(volume, np.floor(place + 0.5).astype(int), axis=axis)
            continue
        low = np.floor(place).astype(int)
        weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(volume.ndim)])
        above = np.take(volume, np.minimum(low + 1, size - 1), axis=axis)
        volume = np.take(volume, low, axis=axis) * (1 - weight) + above * weight
    return volume


# ---- slices


class Planes(LazyImages):
    """The planes across the depth of volumes, in order: (n x D, C, H, W) of images, (n x D, H, W) of masks."""

    def __init__(self, volumes: Images):
        *first, depth, height, width = volumes.shape[1:]
        super().__init__((len(volumes) * depth, *first, height, width), volumes.dtype)
        self.volumes, self.depth = volumes, depth

    def _block(self) -> int:
        return max(1, super()._block() // self.depth) * self.depth

    def _read(self, start: int, stop: int) -> np.ndarray:
        first = start // self.depth
        found = self.volumes[first : -(-stop // self.depth)]
        planes = np.moveaxis(found, -3, 1).reshape(-1, *self.shape[1:])
        return np.ascontiguousarray(planes[start - first * self.depth : stop - first * self.depth])


def slices(dataset: Dataset) -> Dataset:
    """The dataset with the planes across the depth of its volumes as images, all planes of one volume in one group.

    What learns from 2-D images can learn from volumes so. Raises NotApplicable for images that are no volumes, or that
    have one class label a volume, which their planes have not.
    """
    if len(dataset.images.shape) != 5:
        raise NotApplicable(f"{dataset.name} has no volumes to slice: its images have shape {dataset.images.shape[1:]}")
    if dataset.target is not None or dataset.bags is not None:
        raise NotApplicable(f"{dataset.name} has one label a volume, which is not that of each slice")
    n, depth = len(dataset.images), dataset.images.shape[2]
    groups = np.arange(n) if dataset.groups is None else dataset.groups
    per_plane = {"groups": np.repeat(groups, depth)}
    if dataset.split is not None:
        per_plane["split"] = np.repeat(dataset.split, depth)
    if dataset.masks is not None:
        masks = dataset.masks if isinstance(dataset.masks, LazyImages) else _Stack(dataset.masks)
        per_plane["masks"] = Planes(masks)
    note = f"{n} volumes seen as their {n * depth} slices, those of a volume in one group"
    card = replace(dataset.card, spacing=dataset.card.spacing[1:] if len(dataset.card.spacing) == 3 else ())
    return replace(dataset, images=Planes(dataset.images), card=card, assumptions=(*dataset.assumptions, note),
                   **per_plane)  # fmt: skip


class _Stack:
    """Masks that are a sequence of arrays, sliced as one array is."""

    def __init__(self, masks):
        self.masks, self.shape = masks, (len(masks), *np.shape(masks[0]))
        self.dtype = np.asarray(masks[0]).dtype

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: slice) -> np.ndarray:
        return np.stack([np.asarray(self.masks[i]) for i in range(*index.indices(len(self.masks)))])
