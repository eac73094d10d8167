"""Labels: what names tell of them, what their shapes say, and what a person said goes before both."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs
from hypothesis import given
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import UnknownName
from metamed.label_kinds import (
    ASKED,
    KINDS,
    asked_kinds,
    common_kind,
    label_kind,
    named_kind,
    settled_kind,
    vector_kind,
)
from metamed.metafeatures import extract
from metamed.metafeatures.labels import describe_labels


@pytest.mark.parametrize(("name", "kind"), [
    ("polyp", "lesion"), ("liver_tumour", "tumour"), ("Left Ventricle", "organ"), ("retinal vessels", "thin structure"),
    ("class 1 (nerve, inferred)", "thin structure"), ("nuclei", "cells"), ("tumour cells", "cells"), ("label 3", ""),
    ("peripheral zone", "part of an organ"), ("surgical-instrument", "tool"), ("", ""), ("excellent", ""),
])  # fmt: skip
def test_names_tell_kinds(name, kind):
    assert label_kind(name) == kind


def test_the_background_is_no_label_and_the_dataset_speaks_last():
    assert named_kind(("cell interior", "membrane")) == "thin structure"
    assert named_kind(("background", "class 1"), "kvasir_seg_polyps") == "lesion"
    assert named_kind(("background", "liver"), "tumours") == "organ" and named_kind((), "x", "y") == ""
    assert common_kind(["organ", "", "tumour", "tumour"]) == "tumour" and common_kind(["", ""]) == ""


def test_shapes_settle_what_names_leave_open():
    nan = float("nan")
    assert settled_kind("", nan, nan) == "" and settled_kind("lesion", 0.01, 50) == "lesion"
    assert settled_kind("thin structure", 0.9, 1) == "organ"
    assert settled_kind("thin structure", 0.02, 1) == "thin structure"
    assert settled_kind("", 0.02, 1) == "thin structure" and settled_kind("", 0.9, 20) == "cells"
    assert settled_kind("", 0.9, 1) == ""  # an organ or a lesion: no shape tells them apart
    assert vector_kind({"label_kind": "organ"}) == "organ"
    assert vector_kind({"compactness.mean": 0.03}) == "thin structure"


@given(st.sampled_from(["", *KINDS]), st.floats(0, 1), st.floats(0, 1000))
def test_a_settled_kind_is_a_kind(named, compactness, components):
    assert settled_kind(named, compactness, components) in ("", *KINDS)


def test_what_is_asked():
    classes = ("background", "a", "b")
    assert asked_kinds(["tumour"], classes) == {"a": "tumour", "b": "tumour"} and asked_kinds([], classes) == {}
    assert asked_kinds(["organ", "b=tumour"], classes) == {"a": "organ", "b": "tumour"}
    assert asked_kinds(["cells"], ()) == {"": "cells"} and set(ASKED) > set(KINDS)
    with pytest.raises(UnknownName, match="did you mean tumour"):
        asked_kinds(["tumor"], classes)
    with pytest.raises(UnknownName, match="no class in the masks 'c'"):
        asked_kinds(["c=organ"], classes)


def shapes() -> Dataset:
    """A disc in every image, a thread in every second one: 48 x 48, values 1 and 2."""
    rows, columns = np.mgrid[:48, :48]
    masks = np.zeros((6, 48, 48), np.uint8)
    masks[:, (rows - 14) ** 2 + (columns - 24) ** 2 <= 100] = 1
    masks[::2, 40, :] = 2
    images = (masks * 100 + np.arange(6, dtype=np.uint8)[:, None, None])[:, None]
    return Dataset("toy", ArrayImages(images), masks=masks, card=Card(classes=("background", "x", "y")))


def test_labels_are_measured_one_by_one():
    disc, thread = describe_labels(shapes())
    assert disc.presence == 1 and thread.presence == 0.5 and disc.components == thread.components == 1
    assert disc.fraction == pytest.approx((shapes().masks == 1).mean()) and thread.fraction == pytest.approx(1 / 96)
    assert disc.compactness > 0.8 and thread.compactness < 0.12
    assert (disc.kind, disc.told) == ("", "unknown")
    assert "in 50% of the images, 1 region in each" in str(thread) and "unknown kind" in str(disc)


def test_names_and_answers_go_before_shapes():
    named = replace(shapes(), card=Card(classes=("background", "vessel", "liver")))
    disc, thread = describe_labels(named)
    assert (disc.kind, disc.told) == ("organ", "by shape") and (thread.kind, thread.told) == ("organ", "by name")
    disc, thread = describe_labels(named, {"vessel": "thin structure"})
    assert (disc.kind, disc.told) == ("thin structure", "asked") and thread.told == "by name"


def test_labels_of_images_alone():
    images = replace(blobs(20), target=None, card=Card())
    (label,) = describe_labels(images)
    assert label.kind == "" and np.isnan(label.fraction) and str(label) == "the label: of unknown kind (unknown)"
    (label,) = describe_labels(replace(images, name="my_polyps"))
    assert (label.kind, label.told) == ("lesion", "by name")
    (label,) = describe_labels(images, {"": "tool"})
    assert (label.kind, label.told) == ("tool", "asked")


def test_a_dataset_is_described_as_its_labels_are(shared):
    from metamed.readers import read
    from metamed.store.evidence import DatasetFacts

    for path in sorted(shared.glob("data/seg/*.h5")):
        data = read(path)
        vector = DatasetFacts.of(data).words | extract(data, ["segmentation"], max_samples=60)
        assert vector_kind(vector) == common_kind(label.kind for label in describe_labels(data)), data.name
