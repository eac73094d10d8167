import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamed.dataset import (
    ArrayImages,
    Card,
    Dataset,
    grey,
    modality_group,
    near_matches,
    shrink,
    spread,
    take,
    thumbnail_hashes,
)
from metamed.errors import ReadError


def test_kind_goes_by_what_is_there(classification_data, mil_data, segmentation_data):
    assert classification_data.kind == "classification"
    assert mil_data.kind == "mil" and mil_data.n_samples == 20
    assert segmentation_data.kind == "segmentation" and segmentation_data.n_classes == 2


def test_lengths_must_agree(classification_data):
    with pytest.raises(ReadError, match="target has 3 entries, expected 60"):
        Dataset("x", classification_data.images, np.zeros(3, int))


def test_digest_is_of_content_not_of_name(classification_data):
    data = classification_data
    same = Dataset("other name", data.images, data.target, card=Card(organ="eye"))
    assert same.digest == data.digest and len(data.digest) == 40
    assert Dataset("x", data.images, 1 - data.target).digest != data.digest
    assert Dataset("x", ArrayImages(data.images.array ^ 1), data.target).digest != data.digest


def test_unlabelled_samples_are_known(classification_data):
    target = classification_data.target.copy()
    target[:5] = -1
    assert Dataset("x", classification_data.images, target).labelled.tolist() == list(range(5, 60))


class _Lazy:
    """Images that cannot be taken as an array, as in a file."""

    def __init__(self, array):
        self.shape, self.dtype, self._images = array.shape, array.dtype, ArrayImages(array)

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return self._images[index]

    def chunks(self, size=7):
        return self._images.chunks(size)


@given(st.lists(st.integers(0, 59), min_size=1, max_size=80))
def test_take_gives_any_order(indices):
    images = np.arange(60)[:, None, None, None] * np.ones((1, 1, 2, 2))

    assert (take(_Lazy(images), np.array(indices)) == images[indices]).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
def test_shrinking_keeps_a_constant(height, width, cells):
    assert np.allclose(shrink(np.full((2, height, width), 7.0), cells, cells), 7)


def test_shrink_averages_areas():
    assert shrink(np.arange(16.0).reshape(1, 4, 4), 2, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_grey_of_grey_stored_as_rgb(classification_data):
    one = classification_data.images.array[:, :1]
    assert np.allclose(grey(np.repeat(one, 3, axis=1)), grey(one), atol=1e-4)


def test_thumbnails_recognise_a_resized_copy_and_nothing_else():
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (20, 12, 12), dtype=np.uint8)
    large = np.stack([np.asarray(Image.fromarray(c).resize((96, 96), Image.BICUBIC)) for c in coarse])
    small = np.stack([np.asarray(Image.fromarray(c).resize((64, 64), Image.BILINEAR)) for c in large])
    hashes = thumbnail_hashes(large[:, None])
    assert (near_matches(thumbnail_hashes(small[:, None]), hashes) == np.arange(20)).all()
    strangers = thumbnail_hashes(rng.integers(0, 255, (20, 1, 40, 40), dtype=np.uint8))
    assert (near_matches(strangers, hashes) == -1).all()


def test_blank_images_recognise_nothing():
    blank = thumbnail_hashes(np.zeros((3, 1, 20, 20), np.uint8))
    assert (near_matches(blank, blank) == -1).all()


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_spread_is_sorted_and_unique(n, most):
    indices = spread(n, most)
    assert len(indices) == min(n, most) == len(set(indices.tolist())) and indices.max() < n


@pytest.mark.parametrize(("text", "group"), [
    ("chest X-ray", "x-ray"), ("colour fundus photography", "fundus"), ("audio (spectrogram features)", "other"),
    ("", ""), ("CT (axial)", "ct"), ("histopathology (H&E)", "histopathology"), ("natural photograph", "natural"),
])  # fmt: skip
def test_modality_groups(text, group):
    assert modality_group(text) == group
