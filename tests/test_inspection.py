"""Inspecting: the facts of a dataset and what may leak."""

import numpy as np

from metamed.dataset import ArrayImages, Dataset
from metamed.readers.inspection import inspect


def test_inspect_tells_leaks():
    images = np.random.default_rng(0).integers(0, 255, (20, 16, 17)).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    images[13] = images[4]
    target, patient, split = np.tile([0, 1, -1, 0], 5), np.arange(20) // 2, np.repeat([0, 2], [11, 9])
    facts = {"groups": patient, "assumptions": ("labels from labels",)}
    data = Dataset("x", ArrayImages(images[:, None]), target, split, **facts)
    rows = inspect(data)
    text = "\n".join(f"{name}: {value}" for name, value in rows)
    assert "images: 20 images 32x34x1 uint8" in text and "unlabelled: 5 of 20" in text
    assert "classes: 2 classes (imbalance 2.0:1): 0: 10, 1: 5" in text
    assert "groups: 10, the largest of 2 samples" in text and "own split: train 11, test 9" in text
    assert "own split divides 1 of 10 groups" in text
    assert "1 pairs of nearly identical images of different groups" in text
    assert "1 of these pairs lie on both sides" in text and "1 of these pairs have different labels" in text
    assert "assumed: labels from labels" in text


def test_inspect_every_kind(classification_data, mil_data, segmentation_data):
    for data in (classification_data, mil_data, segmentation_data):
        rows = dict(inspect(data))
        assert rows["kind"] == data.kind and "groups" in rows
