"""Overlays: outlines where the mask changes, in the colour of its class, and a page that shows them."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs
from PIL import Image

from metamed.dataset import ArrayImages, Dataset
from metamed.overlays import COLOURS, SIDE, class_colours, outlined, overlays
from metamed.records import Candidate, Recommendation, Setup
from metamed.report import render


def test_the_outline_lies_on_the_border_of_each_class():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[50:150, 60:100], mask[50:150, 100:140] = 1, 2
    picture = outlined(np.full((1, SIDE, SIDE), 7, np.uint8), mask)
    first, second = ((picture == c).all(axis=2) for c in COLOURS[:2])
    assert first[50, 70] and first[149, 70] and first[100, 60] and second[100, 139]
    assert first[100, 99] and second[100, 100]  # where they meet both are drawn
    assert (picture[100, 80] == 7).all() and (picture[10, 10] == 7).all()
    inside = mask > 0
    assert not (first | second)[~inside].any() and (first | second).sum() == 2 * 80 + 2 * 98 + 2 * 98


def test_examples_run_from_small_to_large_foreground(segmentation_data):
    masks = np.zeros((20, 16, 16), np.uint8)
    for i in range(1, 20):
        masks[i, :4, :i] = 1
    shown = overlays(replace(segmentation_data, masks=masks))
    shares = [o.share for o in shown]
    assert shares == sorted(shares) and len(shown) == 4 and shares[0] == pytest.approx(1 / 64) and shares[-1] == 0.25
    assert all(o.picture.shape == (SIDE, SIDE, 3) and o.picture.dtype == np.uint8 for o in shown)
    assert class_colours(segmentation_data) == [("square", "#ffd100")]


def test_images_alone_volumes_and_vectors(mil_data):
    alone = overlays(replace(blobs(30), target=None))
    assert len(alone) == 4 and np.isnan(alone[0].share)
    voxels = np.random.default_rng(0).normal(size=(2, 1, 3, 10, 20)).astype(np.float32)
    masks = (voxels[:, 0] > 1).astype(np.uint8)
    shown = overlays(Dataset("v", ArrayImages(voxels), masks=masks))
    assert shown[0].picture.shape == (SIDE // 2, SIDE, 3) and overlays(mil_data) == []


def test_the_page_shows_them_and_no_other_form_does(segmentation_data):
    said = {"labels": ["square: organ (by name)"], "masks": ["80 masks: unet 0.85"]}
    ranking = (Candidate(Setup("unet"), 0.8, 0.7, 0.9),)
    answer = Recommendation("squares", "segmentation", "dice", ranking, (), {}, "b", explanation=said)
    page = render(answer, "html", examples=segmentation_data)
    pictures = page.split('src="data:image/png;base64,')[1:]
    assert len(pictures) == 4 and "#ffd100" in page and "mind whom you send this page to" in page
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].split('"')[0]))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), overlays(segmentation_data)[0].picture)
    assert page == render(answer, "html", examples=segmentation_data) and "<img" not in render(answer, "html")
    for form in ("text", "md"):
        text = render(answer, form, examples=segmentation_data)
        assert "base64" not in text and "square: organ (by name)" in text and "80 masks: unet 0.85" in text
