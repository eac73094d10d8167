"""Bags in files: CLAM's, TRIDENT's and torchmil's folders, tables, and HDF5 with bag_ids, back as they were written."""

import csv
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_readers import everything, h5, refused

from metamed.readers import read, slides

RNG = np.random.default_rng(0)
SIZES = [3, 1, 5, 2]
NAMES = ["s10", "s2", "s3", "s4"]
FEATURES = [RNG.normal(size=(n, 6)).astype(np.float32) for n in SIZES]
PLACES = [RNG.integers(0, 900, (n, 2)) for n in SIZES]


def table(path: Path, *rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


LABELS = [["case_id", "slide_id", "label", "split"], ["p1", "s2", "normal", "train"], ["p1", "s10", "tumour", "train"],
          ["p2", "s3", "tumour", "test"], ["p3", "s4", "normal", "test"]]  # fmt: skip


def clam(folder: Path, features=FEATURES, labels=LABELS, old: bool = False, names=NAMES) -> Path:
    (folder / "h5_files").mkdir(parents=True)
    for name, block, place in zip(names, features, PLACES, strict=True):
        h5(folder / "h5_files" / f"{name}.h5", features=block[None] if old else block, coords=place)
    if labels:
        table(folder / "labels.csv", *labels)
    return folder


@pytest.mark.parametrize("old", [False, True])
def test_slides_gives_back_what_was_written(tmp_path, old):
    data = read(clam(tmp_path / "camelyon", old=old))
    assert data.kind == "mil" and data.name == "camelyon" and data.images.shape == (11, 6)
    assert np.array_equal(everything(data), np.concatenate(FEATURES))
    assert np.array_equal(data.bags, np.repeat(range(4), SIZES))
    assert data.target.tolist() == [1, 0, 1, 0] and data.card.classes == ("normal", "tumour")
    assert data.groups[0] == data.groups[1] and len(np.unique(data.groups)) == 3
    assert data.split.tolist() == [0, 0, 2, 2]
    assert np.array_equal(data.coordinates, np.concatenate(PLACES))
    assert data.digest == read(tmp_path / "camelyon").digest


def test_slides_are_read_lazily(tmp_path, monkeypatch):
    data = read(clam(tmp_path / "x"))
    asked, load = [], slides._load
    monkeypatch.setattr(slides, "_load", lambda p, a, b: asked.append((p.stem, a, b)) or load(p, a, b))
    want = np.concatenate(FEATURES)
    assert np.array_equal(data.images[4], want[4]) and asked == [("s3", 0, 1)]
    assert np.array_equal(data.images[2:5], want[2:5])
    assert asked[1:] == [("s10", 2, 3), ("s2", 0, 1), ("s3", 0, 1)]
    assert np.array_equal(pickle.loads(pickle.dumps(data.images))[10], want[10])


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), min_size=3, max_size=7), a=st.integers(0, 20), b=st.integers(0, 20))
def test_any_part_of_the_instances(tmp_path_factory, sizes, a, b):
    label = np.cumsum([n > 0 for n in sizes]) % 2  # both classes among the bags that hold something
    assume(sum(n > 0 for n in sizes) > 1)
    folder = tmp_path_factory.mktemp("bags")
    blocks = [RNG.normal(size=(n, 2)).astype(np.float32) for n in sizes]
    rows = [["slide_id", "label"], *([f"b{i}", k] for i, k in enumerate(label))]
    for i, block in enumerate(blocks):
        h5(folder / f"b{i}.h5", features=block, coords=np.zeros((len(block), 2)))
    data, want = read(table(folder / "t.csv", *rows).parent), np.concatenate(blocks)
    assert np.array_equal(data.images[a:b], want[a:b]) and np.array_equal(everything(data), want)
    assert data.target.tolist() == [k for k, n in zip(label, sizes, strict=True) if n]


def test_trident_with_two_encoders_asks_which(tmp_path):
    for encoder in ("features_uni_v1", "features_conch_v15"):
        folder = tmp_path / "20x" / encoder
        folder.mkdir(parents=True)
        for name, block, place in zip(NAMES, FEATURES, PLACES, strict=True):
            h5(folder / f"{name}.h5", features=block + (encoder == "features_uni_v1"), coords=place)
    (tmp_path / "20x" / "patches").mkdir()
    h5(tmp_path / "20x" / "patches" / "s10_patches.h5", coords=PLACES[0])
    table(tmp_path / "labels.csv", *LABELS)
    assert "--images features_conch_v15" in refused(tmp_path / "20x")
    data = read(tmp_path / "20x", images="features_uni_v1")
    assert np.array_equal(everything(data), np.concatenate(FEATURES) + 1)
    again = read(tmp_path / "20x" / "features_conch_v15", labels=str(tmp_path / "labels.csv"))
    assert np.array_equal(everything(again), np.concatenate(FEATURES))


def test_slides_of_which_some_have_no_label(tmp_path):
    rows = [LABELS[0], ["p1", "s2.svs", "normal", "train"], ["p1", "s10.svs", "tumour", ""], ["p9", "s77", "n", "test"],
            ["p2", "s3.svs", "normal", "test"]]  # fmt: skip
    data = read(clam(tmp_path / "x", labels=rows))
    assert data.target.tolist() == [1, 0, 0, -1] and "1 bags without a row" in " ".join(data.assumptions)


def test_what_is_wrong_with_slides_is_said(tmp_path):
    assert "--labels TABLE.csv" in refused(clam(tmp_path / "none", labels=None))
    ages = [["slide_id", "age"], *[[n, 3] for n in NAMES]]
    assert "no column of labels" in refused(clam(tmp_path / "a", labels=ages))
    assert "Features of one encoder" in refused(clam(tmp_path / "b", features=[*FEATURES[:3], np.zeros((2, 7))]))
    nan = [*FEATURES[:3], np.full((2, 6), np.nan, np.float32)]
    assert "s4.h5" in refused(clam(tmp_path / "c", features=nan))
    vectors = tmp_path / "slide_features_titan"
    vectors.mkdir()
    for name in NAMES:
        h5(vectors / f"{name}.h5", features=np.zeros(6))
    table(vectors / "labels.csv", *LABELS)
    assert "one vector a slide" in refused(vectors)
    only = tmp_path / "patches"
    only.mkdir()
    for name in NAMES:
        h5(only / f"{name}.h5", coords=PLACES[0])
    assert "extract them first" in refused(only)
    folder = clam(tmp_path / "cut")
    (folder / "h5_files" / "s3.h5").write_bytes((folder / "h5_files" / "s3.h5").read_bytes()[:600])
    assert "s3.h5: damaged" in refused(folder)
    assert "no such table" in refused(clam(tmp_path / "d"), labels="absent.csv")
    assert "no column 'site'" in refused(clam(tmp_path / "e"), group="site")
    clam(tmp_path / "f")
    table(tmp_path / "f" / "other.csv", *LABELS)
    assert "2 tables" in refused(tmp_path / "f")


def torchmil(folder: Path, suffix: str = ".npy") -> Path:
    what = {"features": FEATURES, "coords": PLACES, "labels": [np.array([i % 2]) for i in range(4)],
            "inst_labels": [np.arange(n)[:, None] % 2 * (i % 2) for i, n in enumerate(SIZES)]}  # fmt: skip
    for name, values in what.items():
        (folder / name).mkdir(parents=True)
        for bag, value in zip(NAMES, values, strict=True):
            if suffix == ".npy":
                np.save(folder / name / f"{bag}.npy", value)
            else:
                h5(folder / name / f"{bag}.h5", **{name: value})
    split = zip(NAMES, ["train", "val", "test", "train"], strict=True)
    table(folder / "splits.csv", ["bag_name", "split"], *split)
    return folder


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_torchmil_gives_back_what_was_written(tmp_path, suffix):
    data = read(torchmil(tmp_path / "x", suffix))
    assert data.kind == "mil" and np.array_equal(everything(data), np.concatenate(FEATURES))
    assert data.target.tolist() == [0, 1, 0, 1] and data.split.tolist() == [0, 1, 2, 0]
    assert np.array_equal(data.coordinates, np.concatenate(PLACES))
    assert data.instance_target.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert np.array_equal(data.images[5:9], np.concatenate(FEATURES)[5:9])


def test_what_is_wrong_with_torchmil_folders_is_said(tmp_path):
    folder = torchmil(tmp_path / "x")
    (folder / "labels" / "s3.npy").unlink()
    assert "1 bags have no file in labels/ (s3" in refused(folder)
    folder = torchmil(tmp_path / "y")
    np.save(folder / "labels" / "s3.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "not a plain array" in refused(folder)
    folder = torchmil(tmp_path / "z")
    np.save(folder / "inst_labels" / "s3.npy", np.zeros(4))
    assert "4 instance target for 5 instances" in refused(folder)


@pytest.mark.parametrize("signs", [(0, 1), (-1, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_bag_table_gives_back_what_was_written(tmp_path, signs, swap):
    """Label, bag, features without a header, as MILpy and multipleinstancelearning.com have them; or bag, label."""
    first = [(f"{7 - i}.0", signs[i % 2]) if swap else (signs[i % 2], 7 - i) for i in range(4)]
    rows = [[*first[i], *row] for i, b in enumerate(FEATURES) for row in b]
    data = read(table(tmp_path / "musk.csv", *rows))
    assert data.kind == "mil" and np.allclose(everything(data), np.concatenate(FEATURES))
    labels = [[i % 2 for i, n in enumerate(SIZES) for _ in range(n)][k] for k in range(11)]
    assert data.target[data.bags].tolist() == labels and len(np.unique(data.bags)) == 4


def test_a_bag_table_with_named_columns(tmp_path):
    head = ["bag_id", "bag_label", "instance_label", "x", "y", "patient_id", "split", "f1", "f2", "site"]
    rows = [[f"b{i}", "np"[i % 2], j % 2, j, 2 * j, f"p{i // 2}", "train" if i < 2 else "test", v[0], v[1], "west"]
            for i, b in enumerate(FEATURES) for j, v in enumerate(b)]  # fmt: skip
    data = read(table(tmp_path / "cells.csv", head, *rows))
    assert data.images.shape == (11, 2) and np.allclose(everything(data), np.concatenate(FEATURES)[:, :2])
    assert data.target.tolist() == [0, 1, 0, 1] and data.card.classes == ("n", "p")
    assert data.groups.tolist() == [0, 0, 1, 1] and data.split.tolist() == [0, 0, 2, 2]
    assert data.instance_target.tolist() == [j % 2 for n in SIZES for j in range(n)]
    assert data.coordinates[:3].tolist() == [[0, 0], [1, 2], [2, 4]]
    assert "not used: site" in " ".join(data.assumptions)


def test_what_is_wrong_with_a_bag_table_is_said(tmp_path):
    good = [["bag_id", "bag_label", "f"], ["a", 0, 1], ["a", 0, 2], ["b", 1, 3], ["b", 1, 4]]
    assert "differs within a bag (data row 2" in refused(table(tmp_path / "a.csv", *good[:2], ["a", 1, 2], *good[3:]))
    assert "row 4 has 2 cells" in refused(table(tmp_path / "b.csv", *good[:3], ["b", 1], good[4]), reader="bag_table")
    assert "no value in feature 1" in refused(table(tmp_path / "c.csv", *good[:3], ["b", 1, ""], good[4]))
    assert "no column of bag labels" in refused(table(tmp_path / "d.csv", ["bag_id", "kind", "f"], *good[1:]))
    assert "no layout that is known" in refused(table(tmp_path / "e.csv", ["name", "age"], ["x", 3], ["y", 4]))
    unique = table(tmp_path / "f.csv", *([i, i, 1] for i in range(4)))
    assert "neither of the first two" in refused(unique, reader="bag_table")
    (tmp_path / "g.csv").write_bytes(b"\xff\xfe\x00")
    assert "not a readable table" in refused(tmp_path / "g.csv", reader="bag_table")


def test_hdf5_with_bag_ids_keeps_places_instance_labels_and_groups(tmp_path):
    bags = np.repeat([4, 2, 9], [2, 3, 2])
    data = read(h5(tmp_path / "x.h5", features=RNG.normal(size=(7, 4)), bag_ids=bags, bag_labels=[0, 1, 1],
                   bag_group=["west", "east", "west"], instance_labels=[0, 0, 1, 0, 1, 0, 1],
                   patch_xy=np.arange(14).reshape(7, 2)))  # fmt: skip
    assert data.target[data.bags].tolist() == [1, 1, 0, 0, 0, 1, 1]  # labels follow the bags in ascending order
    assert data.instance_target.tolist() == [0, 0, 1, 0, 1, 0, 1] and data.coordinates[3].tolist() == [6, 7]
    assert data.groups[data.bags].tolist() == [0, 0, 1, 1, 1, 1, 1]  # bag 2 is "west", 4 "east", 9 "west"


def test_hdf5_bags_that_are_named_out_of_order(tmp_path):
    data = read(h5(tmp_path / "x.h5", features=RNG.normal(size=(6, 4)), bag_ids=["b", "a", "c", "a", "b", "c"],
                   bag_names=["c", "a", "b"], bag_labels=[1, 0, 0], bag_group=["p", "q", "q"]))  # fmt: skip
    assert data.target[data.bags].tolist() == [0, 0, 1, 0, 0, 1]
    b, a, c = data.groups[data.bags[:3]]
    assert a == b != c


def test_hdf5_what_is_given_for_more_bags_than_have_instances(tmp_path):
    data = read(h5(tmp_path / "x.h5", features=RNG.normal(size=(6, 4)), bag_ids=[0, 0, 2, 2, 3, 3],
                   bag_labels=[0, 1, 1, 0], bag_group=["p", "gone", "q", "q"], split=[0, 1, 0, 2]))  # fmt: skip
    assert data.target.tolist() == [0, 1, 0] and data.split.tolist() == [0, 0, 2]
    assert data.groups[1] == data.groups[2] != data.groups[0]


def test_real_bags_know_where_their_instances_lie(shared):
    colon = read(shared / "data/mil/colon_cancer_nuclei_bags.h5")
    assert colon.coordinates.shape == (5788, 2) and colon.instance_target.mean() > 0.1
    positive = np.bincount(colon.bags, colon.instance_target) > 0
    assert (positive <= colon.target.astype(bool)).all() and positive.sum() >= 50
    breast = read(shared / "data/mil/ucsb_breast_image_bags.h5")
    assert breast.coordinates.shape == (3248, 2) and 1 < len(np.unique(breast.groups)) < 58


def test_patches_of_one_slide_are_not_a_dataset(tmp_path):
    path = h5(tmp_path / "slide.h5", features=np.zeros((5, 3)), coords=np.zeros((5, 2)))
    assert "folder" in refused(path)
    with h5py.File(path) as file:
        assert "features" in file
