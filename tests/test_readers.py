"""Reading: every layout and encoding back as it was written, every real file, and every error in one line."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from metamed.dataset import take
from metamed.errors import MetamedError, NotApplicable, ReadError
from metamed.readers import READERS, H5Images, read

RNG = np.random.default_rng(0)
EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "retina.h5"


def pixels(n: int = 12, *item: int, dtype=np.uint8) -> np.ndarray:
    return RNG.integers(0, 255, (n, *(item or (8, 8, 3)))).astype(dtype)


def h5(path: Path, attributes: dict | None = None, options: dict | None = None, **arrays) -> Path:
    """An HDF5 file; `__` in a name is `/` in the file."""
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            value = np.asarray(value)
            value = value.astype(h5py.string_dtype()) if value.dtype.kind == "U" else value
            file.create_dataset(key.replace("__", "/"), data=value, **((options or {}) if value.ndim > 2 else {}))
        file.attrs.update(attributes or {})
    return path


def everything(dataset) -> np.ndarray:
    return np.concatenate([block for _, block in dataset.images.chunks()])


def refused(path, error=ReadError, **keys) -> str:
    with pytest.raises(error) as caught:
        dataset = read(path, **keys)
        everything(dataset)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400, message
    return message


@settings(max_examples=20, deadline=None)
@given(images=arrays(np.uint8, st.tuples(st.integers(2, 7), st.integers(5, 9), st.integers(5, 9), st.just(3))))
def test_channels_last_and_first_read_the_same(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("axes")
    last = read(h5(folder / "last.h5", images=images))
    first = read(h5(folder / "first.h5", images=images.transpose(0, 3, 1, 2)))
    assert np.array_equal(everything(last), images.transpose(0, 3, 1, 2))
    assert last.digest == first.digest


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">f4"])
def test_pixel_types_stay(tmp_path, dtype):
    images = pixels(6, 9, 9, dtype=dtype)
    data = read(h5(tmp_path / "x.h5", images=images))
    assert data.images.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(everything(data)[:, 0], images)


def test_signed_integers_become_float(tmp_path):
    images = pixels(6, 9, 9, dtype=np.int16) - 100
    data = read(h5(tmp_path / "ct.h5", images=images))
    assert data.images.dtype == np.float32 and np.array_equal(data.images[2][0], images[2])
    assert any("int16" in line for line in data.assumptions)


def test_lazy_images_read_any_way(tmp_path):
    images = pixels(53, 8, 8, 3)
    data = read(h5(tmp_path / "x.h5", options={"chunks": (7, 8, 8, 3), "compression": "gzip"}, images=images))
    want, lazy = images.transpose(0, 3, 1, 2), data.images
    assert np.array_equal(lazy[5], want[5]) and np.array_equal(lazy[-1], want[-1])
    assert np.array_equal(lazy[50:3:-4], want[50:3:-4]) and lazy[9:9].shape == (0, 3, 8, 8)
    with pytest.raises(IndexError):
        lazy[53]
    assert lazy._kept is None
    assert np.array_equal(take(lazy, np.array([52, 0, 1, 1])), want[[52, 0, 1, 1]])
    many = RNG.integers(0, 53, 40)
    assert np.array_equal(take(lazy, many), want[many])
    parts = list(lazy.chunks(10))
    assert all(len(block) <= 10 and block.flags.c_contiguous for _, block in parts)
    assert [p.start for p, _ in parts] == [0, *(p.stop for p, _ in parts[:-1])]
    assert lazy._kept is not None and np.array_equal(lazy[5], want[5])
    again = pickle.loads(pickle.dumps(lazy))
    assert again._kept is None and np.array_equal(again[5], want[5])


def test_images_cross_to_other_processes(tmp_path):
    data = read(h5(tmp_path / "x.h5", images=pixels(30)))
    want = [data.images[i].sum() for i in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_total, [data.images] * 4, range(4))) == want


def _total(images, i: int) -> int:
    return images[i].sum()


def test_large_images_are_not_kept_and_blocks_follow_the_chunks(tmp_path, monkeypatch):
    images = pixels(40, 16, 16)
    data = read(h5(tmp_path / "x.h5", options={"chunks": (6, 16, 16)}, images=images))
    monkeypatch.setattr("metamed.readers.lazy.KEPT_BYTES", 100)
    monkeypatch.setattr("metamed.readers.lazy._BLOCK_BYTES", 13 * 256)
    asked, decode = [], H5Images._read
    monkeypatch.setattr(H5Images, "_read", lambda self, a, b: asked.append((a, b)) or decode(self, a, b))
    assert np.array_equal(everything(data)[:, 0], images)
    assert sorted(asked) == [(0, 12), (12, 24), (24, 36), (36, 40)] and data.images._kept is None


def test_companions(tmp_path):
    path = h5(tmp_path / "a b.h5", {"classes": '["n", "p"]', "modality": "CT", "organ": "lung", "licence": "CC0",
              "spacing": [0.5, 0.25], "name": "lungs"}, images=pixels(), LABELS=[0, 1] * 6, fine_label=range(12),
              group_id=range(12), patient_id=[f"p{i // 2}" for i in range(12)], split=[0] * 8 + [2] * 4)  # fmt: skip
    data = read(str(path))
    assert (data.name, data.card.modality, data.card.organ, data.card.license) == ("lungs", "CT", "lung", "CC0")
    assert data.card.classes == ("n", "p") and data.card.spacing == (0.5, 0.25)
    assert len(np.unique(data.groups)) == 6 and data.split.tolist() == [0] * 8 + [2] * 4
    said = " | ".join(data.assumptions)
    assert "groups from patient_id" in said and "'fine_label'" in said and "'group_id'" in said
    assert len(np.unique(read(path, group="group_id").groups)) == 12


@pytest.mark.parametrize("names", ["x_{}", "{}_x", "{}/x"])
def test_a_file_divided_into_parts(tmp_path, names):
    x, y = pixels(20), np.arange(20) % 3
    at = {"train": slice(0, 12), "valid": slice(12, 15), "test": slice(15, 20)}
    written = {names.format(p).replace("/", "__"): x[s] for p, s in at.items()}
    written |= {names.format(p).replace("/", "__").replace("x", "y"): y[s] for p, s in at.items()}
    data = read(h5(tmp_path / "x.h5", **written))
    assert data.split.tolist() == [0] * 12 + [1] * 3 + [2] * 5
    assert np.array_equal(data.target, y) and np.array_equal(everything(data), x.transpose(0, 3, 1, 2))
    assert np.array_equal(data.images[10:17], x.transpose(0, 3, 1, 2)[10:17])  # across two parts


def test_segmentation(tmp_path):
    masks = RNG.integers(0, 2, (12, 8, 8))
    data = read(h5(tmp_path / "x.h5", {"classes": '["background", "lesion"]'}, images=pixels(), masks=masks))
    assert data.kind == "segmentation" and data.n_classes == 2 and np.array_equal(data.masks[3], masks[3])
    data = read(h5(tmp_path / "y.h5", image=pixels(), label=masks[..., None] * 255))
    assert data.card.classes == ("0", "255") and np.array_equal(list(data.masks), masks)
    both = h5(tmp_path / "z.h5", images=pixels(), masks=masks, labels=np.arange(12) % 2)
    assert read(both).target is None and any("--kind classification" in line for line in read(both).assumptions)
    assert read(both, kind="classification").n_classes == 2


def test_multiple_instances(tmp_path):
    bags = np.array([0, 0, 2, 1, 2, 2])
    path = h5(tmp_path / "x.h5", features=RNG.normal(size=(6, 5)), bag_ids=bags, bag_labels=[0, 1, 1],
              bag_group=[*"abb"], patch_xy=np.zeros((6, 2), int), instance_labels=[0, 0, 1, 1, 0, 0])  # fmt: skip
    data = read(path)
    assert data.kind == "mil" and data.images.shape == (6, 5) and np.array_equal(data.bags, bags)
    assert data.target.tolist() == [0, 1, 1] and data.groups.tolist() == [0, 1, 1] and data.coordinates.shape == (6, 2)
    assert data.instance_target.sum() == 2
    each = h5(tmp_path / "y.h5", images=pixels(6), bag_id=["s", "s", "r", "q", "r", "r"], labels=[0, 0, 1, 1, 1, 1])
    data = read(each)
    assert data.target[data.bags].tolist() == [0, 0, 1, 1, 1, 1]


def test_labels_within_a_slide(tmp_path):
    slides = np.repeat(["s1", "s2", "s3"], 4)
    data = read(h5(tmp_path / "x.h5", images=pixels(), slide_id=slides, labels=np.arange(12) % 2))
    assert data.kind == "classification" and data.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    data = read(h5(tmp_path / "y.h5", images=pixels(), slide_id=slides, labels=[0] * 4 + [1] * 8))
    assert data.kind == "mil" and data.target.tolist() == [0, 1, 1] and data.groups is None


def test_triplets(tmp_path):
    path = h5(tmp_path / "x.h5", images=pixels(), triplets=[[0, 1, 2], [3, 4, 5]], annotators=["ann", "bob"])
    data = read(path)
    assert data.kind == "similarity" and data.triplets.closer.tolist() == [1, 4]
    assert data.triplets.annotator.tolist() == ["ann", "bob"]
    assert "none of 1 triplets" in refused(h5(tmp_path / "y.h5", images=pixels(), triplets=[[0, 1, 12]]))


def test_npz_like_medmnist(tmp_path):
    x, y = pixels(20, 28, 28), (np.arange(20) % 2)[:, None]
    np.savez_compressed(tmp_path / "m.npz", train_images=x[:10], train_labels=y[:10], val_images=x[10:14],
                        val_labels=y[10:14], test_images=x[14:], test_labels=y[14:])  # fmt: skip
    data = read(tmp_path / "m.npz")
    assert np.array_equal(everything(data)[:, 0], x) and np.array_equal(data.target, y[:, 0])
    assert np.bincount(data.split).tolist() == [10, 4, 6]
    np.savez(tmp_path / "g.npz", x=x, y=["a", "b"] * 10)
    assert read(tmp_path / "g.npz").card.classes == ("a", "b")


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)


def test_folder_of_classes(tmp_path):
    x = pixels(6, 10, 12, 3)
    for i, image in enumerate(x):
        save(tmp_path / f"class {i % 2}" / f"{i}.png", image)
    (tmp_path / ".DS_Store").write_text("")
    data = read(tmp_path)
    assert data.card.classes == ("class 0", "class 1") and data.target.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(everything(data), x[[0, 2, 4, 1, 3, 5]].transpose(0, 3, 1, 2)) and data.images.sizes is None


def test_folder_with_parts_sizes_and_modes(tmp_path):
    modes = ["L", "RGBA", "P", "RGB"]
    for i in range(12):
        part = ("train", "val", "test")[i // 4]
        save(tmp_path / part / "ab"[i % 2] / f"{i}.png", pixels(1, 8 + i, 20, 3)[0], modes[i % 4])
    data = read(tmp_path)
    assert data.split.tolist() == [2] * 4 + [0] * 4 + [1] * 4  # folders in alphabetical order
    assert data.images.shape == (12, 3, 14, 20) and everything(data).shape == (12, 3, 14, 20)
    assert sorted(data.images.sizes[:, 0].tolist()) == list(range(8, 20))
    assert any("resized to the median 14x20" in line for line in data.assumptions)
    assert any("RGBA" in line for line in data.assumptions)


def test_deep_grey_images(tmp_path):
    x = pixels(4, 9, 9, dtype=np.uint16) * 200
    for i, image in enumerate(x):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", image)
    data = read(tmp_path)
    assert data.images.dtype == np.uint16 and np.array_equal(everything(data)[:, 0], x[[0, 2, 1, 3]])


def test_registry_names_what_it_reads():
    assert {"hdf5", "npz", "images"} <= set(READERS)
    assert all(r.description and r.suffixes for r in READERS.values())


# ---- errors


def test_files_that_are_none(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("a,b\n1,2\n")
    assert "not an HDF5 file" in refused(tmp_path / "text.h5")
    (tmp_path / "x.docx").write_text("")
    assert ".h5" in refused(tmp_path / "x.docx") and ".npz" in refused(tmp_path / "x.docx")
    (tmp_path / "x.npz").write_text("no")
    assert "damaged" in refused(tmp_path / "x.npz")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("")
    assert "1 .txt" in refused(tmp_path / "empty")


def test_truncated_file(tmp_path):
    path = h5(tmp_path / "x.h5", images=pixels(200), labels=np.arange(200) % 2)
    path.write_bytes(path.read_bytes()[:-3000])
    assert "cut off" in refused(path)


def test_damaged_chunk(tmp_path):
    path = h5(tmp_path / "x.h5", options={"compression": "gzip", "chunks": (5, 8, 8, 3)}, images=pixels(20))
    with h5py.File(path) as file:
        place = file["images"].id.get_chunk_info(2).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place : place + 40] = bytes(40)
    path.write_bytes(raw)
    assert "damaged" in refused(path)


def test_no_images_and_no_labels(tmp_path):
    path = h5(tmp_path / "retina.h5", scan=pixels(12), grade=np.arange(12) % 3)
    message = refused(path)
    assert "'scan' (12,8,8,3) uint8, 'grade' (12,) int64" in message
    assert f"metamed recommend --dataset {path} --images scan --labels grade" in message
    assert read(path, images="scan", labels="grade").n_classes == 3
    unlabelled = read(path, images="scan")
    assert unlabelled.target is None and any("--labels grade" in line for line in unlabelled.assumptions)
    assert "did you mean 'grade'" in refused(path, images="scan", labels="grades")


def test_several_candidates(tmp_path):
    path = h5(tmp_path / "x.h5", images=pixels(), fine_label=np.arange(12) % 3, coarse_label=np.arange(12) % 2)
    assert "'coarse_label' or 'fine_label'" in refused(path) and "--labels" in refused(path)
    path = h5(tmp_path / "y.h5", case1__image=pixels(), case2__image=pixels())
    assert "case1/image" in refused(path)
    one = h5(tmp_path / "z.h5", images=pixels(), image_labels=np.arange(12) % 3)
    assert read(one).n_classes == 3 and "labels from image_labels" in read(one).assumptions


def test_wrong_lengths_few_samples_and_one_class(tmp_path):
    assert "has 11 entries, expected 12" in refused(h5(tmp_path / "a.h5", images=pixels(), labels=range(11)))
    assert "at least 2" in refused(h5(tmp_path / "b.h5", images=pixels(1), labels=[0]))
    assert "every label is '3'" in refused(h5(tmp_path / "c.h5", images=pixels(), labels=[3] * 12), NotApplicable)
    parts = h5(tmp_path / "d.h5", x_train=pixels(), x_test=pixels(), y_train=range(12))
    assert "not divided alike" in refused(parts)
    odd = h5(tmp_path / "f.h5", x_train=pixels(), x_test=pixels(), y_train=range(12), y_test=[[0]] * 12)
    assert "differ in shape" in refused(odd)
    assert "different shapes" in refused(h5(tmp_path / "e.h5", x_train=pixels(), x_test=pixels(12, 9, 9, 3)))


def test_pixels_that_are_no_numbers(tmp_path):
    images = pixels(12, 8, 8, dtype=np.float32)
    images[7, 3, 3], images[9, 0, 0] = np.nan, np.inf
    path = h5(tmp_path / "x.h5", images=images, labels=np.arange(12) % 2)
    assert "image 7 " in refused(path)
    assert read(path).images[6].shape == (1, 8, 8)  # found where it is read
    np.savez(tmp_path / "x.npz", images=images)
    assert "image 7 " in refused(tmp_path / "x.npz")


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", images=pixels(), labels=np.array([{}] * 12, dtype=object))
    assert "pickled" in refused(tmp_path / "x.npz")


def test_known_files_of_another_kind(tmp_path):
    slide = h5(tmp_path / "slide.h5", features=np.zeros((9, 5)), coords=np.zeros((9, 2)))
    assert "folder of the slides" in refused(slide)
    assert "k-space" in refused(h5(tmp_path / "knee.h5", kspace=np.zeros((3, 4, 4)), reconstruction_rss=pixels(3)))
    isic = h5(tmp_path / "isic.h5", **{f"ISIC_{i:07d}": np.void(bytes([255, 216, i])) for i in range(60)})
    assert "ISIC" in refused(isic)
    single = h5(tmp_path / "slice.h5", image=np.zeros((20, 30)), label=np.zeros((20, 30)))
    assert "Stack" in refused(single)


def test_masks_that_do_not_fit(tmp_path):
    assert "expected (12,8,8)" in refused(h5(tmp_path / "x.h5", images=pixels(), masks=np.zeros((12, 8, 9))))
    assert "class indices" in refused(h5(tmp_path / "y.h5", images=pixels(), masks=np.full((12, 8, 8), 0.5)))


def test_kinds_that_the_data_cannot_have(tmp_path):
    path = h5(tmp_path / "x.h5", images=pixels(), labels=np.arange(12) % 2)
    assert "mil needs bags" in refused(path, kind="mil")
    assert "segmentation" in refused(path, MetamedError, kind="segmentatio")
    assert "hdf5" in refused(path, MetamedError, reader="hdf")


def test_broken_image_is_named(tmp_path):
    for i in range(4):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", pixels(1, 40, 40, 3)[0])
    whole = (tmp_path / "a" / "2.png").read_bytes()
    (tmp_path / "a" / "2.png").write_bytes(whole[: len(whole) // 2])
    assert "2.png" in refused(tmp_path)
    (tmp_path / "a" / "2.png").write_text("not an image")
    assert "2.png" in refused(tmp_path)


def test_folder_of_masks_is_no_class(tmp_path):
    for name in ("images", "masks"):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", pixels(1, 8, 8, 3)[0])
    assert "masks" in refused(tmp_path)
    assert "no keys" in refused(tmp_path, labels="y")


# ---- real files


def test_the_example_of_the_documentation():
    data = read(EXAMPLE)
    assert EXAMPLE.stat().st_size < 1.5e6 and data.images.shape == (150, 3, 64, 64) and data.name == "retina"
    assert set(data.target.tolist()) == set(range(5)) and len(data.card.classes) == 5
    assert len(np.unique(data.groups)) == 75 and data.card.license == "CC BY-NC 4.0"
    licence = EXAMPLE.with_suffix(".LICENSE.txt").read_text()
    assert data.card.license in licence and data.card.url in licence and "Rahim" in licence


def test_the_example_is_what_the_script_makes(shared, tmp_path, monkeypatch):
    from benchmarks.make_example import main

    monkeypatch.setenv("METAMED_SHARED", str(shared))
    main(tmp_path / "retina.h5")
    made, kept = read(tmp_path / "retina.h5"), read(EXAMPLE)
    assert made.digest == kept.digest and made.card == kept.card and np.array_equal(made.groups, kept.groups)


def test_every_real_file_reads(shared):
    files = sorted(shared.glob("data/[csm][lei][sgl]/*.h5"))
    assert len(files) > 40
    for path in files:
        data = read(path)
        first = next(iter(data.images.chunks(16)))[1]
        assert first.shape[1:] == data.images.shape[1:] and data.images.shape[0] >= 2
        assert data.kind == {"cls": "classification", "seg": "segmentation", "mil": "mil"}[path.parent.name]
        assert data.n_classes == len(data.card.classes) >= 2 and data.card.modality and data.card.license
        with h5py.File(path) as file:
            assert ("split" in file) == (data.split is not None)
            assert bool({"patient_id", "group_id", "group", "bag_group"} & set(file)) == (data.groups is not None)
            key = "bag_labels" if "bag_labels" in file else "labels"
            assert key not in file or np.array_equal(data.target, file[key][:])
            if "masks" in file:
                assert np.array_equal(data.masks[1], file["masks"][1])
            if "images" in file:
                channels_first = np.atleast_3d(file["images"][1]).transpose(2, 0, 1)
                assert np.array_equal(data.images[1], channels_first)


def test_crowd_files_read(shared):
    data = read(shared / "data/crowd/pneumonia_cxr_triplets.h5")
    assert len(data.triplets) == 1386 and data.kind == "classification"
    assert read(shared / "data/crowd/pneumonia_cxr_triplets.h5", kind="similarity").kind == "similarity"
