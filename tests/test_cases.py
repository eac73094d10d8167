"""Images with masks in folders: every layout back as it was written, every mismatch in one line, volumes and slices."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_readers import everything, h5, refused

from metamed.dataset import ArrayImages, Dataset
from metamed.errors import NotApplicable
from metamed.readers import read
from metamed.readers.volumes import resampled, slices

RNG = np.random.default_rng(0)
LABELS = {"background": 0, "organ": 1, "tumour": 2}


def volume(path: Path, array: np.ndarray, spacing=(1.0, 2.0, 3.0), axes="RAS", dtype=None) -> Path:
    """A NIfTI file of X, Y, Z[, channels], whose axes point as `axes` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flips = np.array([1 if a in "RAS" else -1 for a in axes])
    affine = np.diag([*(flips * spacing), 1.0])
    nibabel.save(nibabel.Nifti1Image(array.astype(dtype or array.dtype), affine), path)
    return path


def picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path


def scans(n: int = 3, sides=(6, 5, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Integer-valued volumes (n, X, Y, Z) and masks with a box of class 1 that holds one of class 2."""
    masks = np.zeros((n, *sides), np.uint8)
    masks[:, 1:5, 1:4, 1:3] = 1
    masks[:, 2:4, 2:3, 1:2] = 2
    return RNG.integers(-100, 300, (n, *sides)).astype(np.int16), masks


def raw_folder(folder: Path, images, masks, labels=None, suffix=".nii.gz") -> Path:
    """nnU-Net's raw layout."""
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        volume(folder / "imagesTr" / f"case_{i:03}_0000{suffix}", image)
        volume(folder / "labelsTr" / f"case_{i:03}{suffix}", mask)
    said = {"channel_names": {"0": "T1"}, "labels": labels or LABELS, "numTraining": len(images), "file_ending": suffix}
    (folder / "dataset.json").write_text(json.dumps(said))
    return folder


def as_stored(arrays) -> np.ndarray:
    """What X, Y, Z is in memory: depth, height, width."""
    return np.stack([a.transpose(2, 1, 0) for a in arrays])


# ---- what was written comes back


def test_nnunet_gives_back_what_was_written(tmp_path):
    images, masks = scans()
    data = read(raw_folder(tmp_path / "Dataset001_Toy", images, masks))
    assert data.kind == "segmentation" and data.images.shape == (3, 1, 4, 5, 6) and data.images.dtype == np.float32
    assert np.array_equal(everything(data)[:, 0], as_stored(images))
    assert np.array_equal(np.stack([data.masks[i] for i in range(3)]), as_stored(masks))
    assert data.card.classes == ("background", "organ", "tumour") and data.card.spacing == (3.0, 2.0, 1.0)
    assert data.card.modality == "MRI (T1)" and data.n_classes == 3 and data.name == "Dataset001_Toy"
    assert read(tmp_path / "Dataset001_Toy" / "dataset.json").digest == data.digest


def test_nnunet_channels_regions_and_pixels_to_ignore(tmp_path):
    images, masks = scans()
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    masks[0, 0, 0, 0] = 3
    folder = raw_folder(tmp_path / "Dataset002_Two", images, masks, labels)
    for i in range(3):
        volume(folder / "imagesTr" / f"case_{i:03}_0001.nii.gz", images[i] + 1)
    data = read(folder)
    assert data.images.shape == (3, 2, 4, 5, 6) and data.card.classes == ("background", "whole", "core")
    assert np.array_equal(data.images[1][1], data.images[1][0] + 1) and data.masks[0][0, 0, 0] == 0


def test_nnunet_of_pictures(tmp_path):
    folder = tmp_path / "Dataset003_Flat"
    pictures, masks = RNG.integers(0, 255, (4, 9, 7, 3)), RNG.integers(0, 2, (4, 9, 7))
    for i in range(4):
        picture(folder / "imagesTr" / f"c{i}_0000.png", pictures[i])
        picture(folder / "labelsTr" / f"c{i}.png", masks[i])
    said = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "cell": 1}}
    (folder / "dataset.json").write_text(json.dumps(said))
    data = read(folder)
    assert data.images.shape == (4, 3, 9, 7) and np.array_equal(data.masks[2], masks[2])


def test_decathlon_gives_back_what_was_written(tmp_path):
    images, masks = scans()
    folder, rows = tmp_path / "Task99_Toy", []
    for i in range(3):
        both = np.stack([images[i], 2 * images[i]], axis=-1)
        volume(folder / "imagesTr" / f"t{i}.nii.gz", both)
        volume(folder / "labelsTr" / f"t{i}.nii.gz", masks[i])
        rows.append({"image": f"./imagesTr/t{i}.nii.gz", "label": f"./labelsTr/t{i}.nii.gz"})
    (folder / "imagesTs").mkdir()
    said = {"name": "toy", "licence": "CC-BY-SA 4.0", "modality": {"0": "CT", "1": "CT"}, "training": rows, "test": [],
            "labels": {"0": "background", "1": "organ", "2": "tumour"}}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(said))
    data = read(folder)
    assert data.name == "toy" and data.card.license == "CC-BY-SA 4.0" and data.card.modality == "CT"
    assert data.images.shape == (3, 2, 4, 5, 6) and np.array_equal(data.images[1][1], 2 * data.images[1][0])
    assert np.array_equal(data.masks[1], as_stored(masks)[1]) and any("imagesTs" in a for a in data.assumptions)


@pytest.mark.parametrize("names", [("images/{}", "masks/{}"), ("{}", "{}_seg"), ("case{}/img", "case{}/seg"),
                                   ("imgs/a{}", "labels/a{}_label")])  # fmt: skip
def test_nifti_gives_back_what_was_written(tmp_path, names):
    images, masks = scans(4)
    for i in range(4):
        for name, array in zip(names, (images[i], masks[i]), strict=True):
            volume(tmp_path / "set" / (name.format(i) + ".nii.gz"), array)
    data = read(tmp_path / "set")
    assert data.kind == "segmentation" and np.array_equal(everything(data)[:, 0], as_stored(images))
    assert np.array_equal(np.stack([data.masks[i] for i in range(4)]), as_stored(masks)) and data.n_classes == 3


def test_volumes_without_masks_are_read_too(tmp_path):
    images, _ = scans()
    for i in range(3):
        volume(tmp_path / "set" / f"{i}.nii.gz", images[i])
    data = read(tmp_path / "set", kind="segmentation")
    assert data.masks is None and data.target is None and data.images.shape == (3, 1, 4, 5, 6)


@pytest.mark.parametrize("names", [("images/{}.png", "masks/{}.png"), ("{}.png", "{}_mask.png"),
                                   ("train/images/{}.png", "train/masks/{}.png"),
                                   ("img/{}.png", "gt/gt_{}.png")])  # fmt: skip
def test_image_masks_gives_back_what_was_written(tmp_path, names):
    pictures, masks = RNG.integers(0, 255, (4, 9, 7, 3)), RNG.integers(0, 2, (4, 9, 7))
    for i in range(4):
        picture(tmp_path / "set" / names[0].format(i), pictures[i])
        picture(tmp_path / "set" / names[1].format(i), masks[i] * 255)
    data = read(tmp_path / "set")
    assert data.kind == "segmentation" and data.n_classes == 2
    assert np.array_equal(everything(data), pictures.transpose(0, 3, 1, 2))
    assert np.array_equal(np.concatenate([b for _, b in data.masks.chunks(3)]), masks)
    assert (data.split is not None) == names[0].startswith("train")


def test_sizes_palettes_and_lossy_masks(tmp_path):
    for i, side in enumerate((8, 8, 12)):
        picture(tmp_path / "a" / "images" / f"{i}.png", RNG.integers(0, 255, (side, side)))
        mask = np.zeros((side, side), np.uint8)
        mask[: side // 2] = 3
        indexed = Image.fromarray(mask, mode="P")
        indexed.putpalette([255, 0, 0] * 256)
        (tmp_path / "a" / "masks").mkdir(exist_ok=True)
        indexed.save(tmp_path / "a" / "masks" / f"{i}.png")
        picture(tmp_path / "b" / "images" / f"{i}.png", RNG.integers(0, 255, (16, 16)))
        half = np.zeros((16, 16), np.uint8)
        half[:8] = 255
        picture(tmp_path / "b" / "masks" / f"{i}.jpg", half)
    data = read(tmp_path / "a")
    assert data.images.shape == (3, 1, 8, 8)
    assert np.array_equal(data.masks[2], np.repeat([1, 0], 4)[:, None] * np.ones(8))
    lossy = read(tmp_path / "b")
    assert lossy.masks[0][:8].all() and not lossy.masks[0][8:].any() and any("JPEG" in a for a in lossy.assumptions)


def test_a_folder_that_is_called_like_a_mask_may_be_a_class(tmp_path):
    for i in range(4):
        picture(tmp_path / ("mask" if i % 2 else "bare") / f"{i}.png", RNG.integers(0, 255, (8, 8, 3)))
    assert read(tmp_path).card.classes == ("bare", "mask")


# ---- orientation and shape


@pytest.mark.parametrize("axes", ["LPS", "RPI", "LAS"])
def test_volumes_are_turned_to_one_orientation_and_their_masks_with_them(tmp_path, axes):
    image, mask = scans(1)
    flips = [slice(None, None, 1 if a in "RAS" else -1) for a in axes]
    for i, (name, turn) in enumerate((("RAS", [slice(None)] * 3), (axes, flips))):
        volume(tmp_path / "images" / f"{i}.nii.gz", image[0][tuple(turn)], axes=name)
        volume(tmp_path / "masks" / f"{i}.nii.gz", mask[0][tuple(turn)], axes=name)
    data = read(tmp_path)
    assert np.array_equal(data.images[0], data.images[1]) and np.array_equal(data.masks[0], data.masks[1])


def test_a_mask_that_says_another_orientation_lies_as_its_image(tmp_path):
    images, masks = scans(2)
    for i in range(2):
        volume(tmp_path / "images" / f"{i}.nii.gz", images[i])
        volume(tmp_path / "masks" / f"{i}.nii.gz", masks[i], axes="LAS")
    data = read(tmp_path)
    assert np.array_equal(data.masks[1], as_stored(masks)[1])
    assert any("another orientation" in a for a in data.assumptions)


def test_volumes_of_several_shapes_take_the_median(tmp_path):
    for i, sides in enumerate(((6, 6, 4), (6, 6, 4), (12, 12, 8))):
        box = np.zeros(sides, np.uint8)
        box[sides[0] // 2 :] = 1
        volume(tmp_path / "images" / f"{i}.nii.gz", box * 100, spacing=(12 / sides[0],) * 3)
        volume(tmp_path / "masks" / f"{i}.nii.gz", box, spacing=(12 / sides[0],) * 3)
    data = read(tmp_path)
    assert data.images.shape == (3, 1, 4, 6, 6) and data.card.spacing == (2.0, 2.0, 2.0)
    assert np.array_equal(data.masks[2], data.masks[0]) and any("median" in a for a in data.assumptions)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_resampling_invents_no_value_and_keeps_what_has_the_shape(old, new):
    array = RNG.integers(0, 50, old).astype(np.float32)
    linear, near = resampled(array, new), resampled(array, new, nearest=True)
    assert linear.shape == near.shape == new and set(np.unique(near)) <= set(np.unique(array))
    assert array.min() - 1e-4 <= linear.min() and linear.max() <= array.max() + 1e-4
    assert np.array_equal(resampled(array, old), array)


def test_resampling_is_that_of_torch():
    torch = pytest.importorskip("torch")
    array = RNG.normal(size=(5, 7, 6)).astype(np.float32)
    want = torch.nn.functional.interpolate(torch.from_numpy(array)[None, None], (8, 3, 6), mode="trilinear")[0, 0]
    assert np.allclose(resampled(array, (8, 3, 6)), want.numpy(), atol=1e-5)


# ---- slices


def test_slices_are_the_planes_of_each_volume_in_one_group(tmp_path):
    images, masks = scans()
    whole = read(raw_folder(tmp_path / "Dataset001_Toy", images, masks))
    flat = slices(whole)
    assert flat.images.shape == (12, 1, 5, 6) and flat.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal(everything(flat), everything(whole).transpose(0, 2, 1, 3, 4).reshape(12, 1, 5, 6))
    assert np.array_equal(flat.masks[6], whole.masks[1][2]) and np.array_equal(flat.images[6], whole.images[1][:, 2])
    assert np.array_equal(flat.images[3:9], everything(flat)[3:9]) and flat.card.spacing == (2.0, 1.0)


def test_slices_of_arrays_and_of_what_has_none():
    volumes = RNG.integers(0, 9, (2, 3, 4, 5, 6)).astype(np.uint8)
    split, masks = np.array([0, 2]), [RNG.integers(0, 2, (4, 5, 6)) for _ in range(2)]
    flat = slices(Dataset("v", ArrayImages(volumes), masks=masks, split=split))
    assert np.array_equal(flat.images[5], volumes[1, :, 1]) and np.array_equal(flat.masks[5], masks[1][1])
    assert flat.split.tolist() == [0] * 4 + [2] * 4
    with pytest.raises(NotApplicable, match="no volumes"):
        slices(flat)
    with pytest.raises(NotApplicable, match="one label a volume"):
        slices(Dataset("v", ArrayImages(volumes), target=np.array([0, 1])))


# ---- one clear line each


def test_a_mask_of_another_shape(tmp_path):
    images, masks = scans()
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks)
    volume(folder / "labelsTr" / "case_001.nii.gz", masks[1][:, :, :3])
    message = refused(folder)
    assert "case_001.nii.gz" in message and "3x5x6" in message and "4x5x6" in message
    volume(folder / "labelsTr" / "case_001.nii.gz", masks[1], spacing=(1, 1, 1))
    assert "measure 1 x 1 x 1 mm" in refused(folder)


def test_a_mask_of_another_size(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", RNG.integers(0, 255, (8, 8)))
        picture(tmp_path / "masks" / f"{i}.png", np.ones((8, 8 - (i == 2))))
    message = refused(tmp_path)
    assert "2.png" in message and "8x7" in message and "8x8" in message


def test_a_value_that_no_class_has(tmp_path):
    images, masks = scans()
    masks[2, 0, 0, 0] = 7
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks)
    with pytest.raises(Exception, match="holds the value 7") as caught:
        list(read(folder).masks.chunks())
    assert "case_002" in str(caught.value) and "2 tumour" in str(caught.value) and "\n" not in str(caught.value)


def test_no_mask_has_any_foreground(tmp_path):
    images, masks = scans()
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks * 0)
    assert "all 3 masks are empty" in refused(folder, NotApplicable)
    images = RNG.integers(0, 255, (5, 8, 8)).astype(np.uint8)
    path = h5(tmp_path / "x.h5", images=images, masks=np.zeros((5, 8, 8), int))
    assert "all 5 masks are empty" in refused(path, NotApplicable)


def test_masks_that_are_all_foreground_are_not_empty(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", RNG.integers(0, 255, (8, 8)))
        picture(tmp_path / "masks" / f"{i}.png", np.full((8, 8), 255))
    assert all(m.all() for m in read(tmp_path).masks)


def test_cases_that_lack_their_partner(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", RNG.integers(0, 255, (8, 8)))
        picture(tmp_path / "masks" / f"{i}.png", np.ones((8, 8)))
    (tmp_path / "masks" / "1.png").unlink()
    assert "1.png: has no mask, as 1 of 3" in refused(tmp_path)
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "0.png").unlink()
    assert "0.png: a mask without an image" in refused(tmp_path)


def test_coloured_masks(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", RNG.integers(0, 255, (8, 8)))
        picture(tmp_path / "masks" / f"{i}.png", RNG.integers(0, 255, (8, 8, 3)))
    assert "colours" in refused(tmp_path)


def test_what_dataset_json_can_lack(tmp_path):
    images, masks = scans()
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks)
    (folder / "labelsTr" / "case_000.nii.gz").unlink()
    assert "case_000.nii.gz: no such file" in refused(folder)
    (folder / "dataset.json").write_text("{")
    assert "not JSON" in refused(folder)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background"}}))
    volume(folder / "labelsTr" / "case_000.nii.gz", masks[0])
    assert "names 1 class" in refused(folder)
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS, "training": [{"image": 3}]}))
    assert "expected image and label" in refused(folder)


def test_a_broken_volume_is_named(tmp_path):
    images, masks = scans()
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks)
    path = folder / "imagesTr" / "case_001_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    assert "case_001_0000.nii.gz" in refused(folder)


def test_dataset_json_gives_back_what_was_written(tmp_path):
    images, masks = scans()
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks)
    data = read(folder / "dataset.json")
    assert data.name == "Dataset001_Toy" and np.array_equal(everything(data)[:, 0], as_stored(images))
    (folder / "dataset.json").rename(folder / "other.json")
    assert "other.json" in refused(folder / "other.json")


def test_the_command_line_uses_the_slices_of_volumes(tmp_path, capsys):
    from metamed.cli import call

    images, masks = scans()
    folder = raw_folder(tmp_path / "Dataset001_Toy", images, masks)
    assert call(["inspect", "--dataset", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "12 images 5x6x1 float32" in shown and "3 volumes seen as their 12 slices" in shown and "tumour" in shown
    volume(folder / "labelsTr" / "case_001.nii.gz", masks[1][:, :, :3])
    assert call(["inspect", "--dataset", str(folder)]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "case_001.nii.gz" in said
