"""Chunks decoded outside of HDF5, work in threads: the same as without."""

import h5py
import numpy as np
import pytest

from metamed.dataset import ArrayImages
from metamed.parallel import cores, in_order
from metamed.readers import chunks, read

IMAGES = np.random.default_rng(0).integers(0, 9, (41, 30, 20, 3))


def stored(path, images=IMAGES, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **options)
    return h5py.File(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("shape", [(1, 30, 20, 3), (6, 30, 20, 3), (7, 8, 20, 1), (64, 30, 20, 3)])
def test_rows_are_those_of_h5py(tmp_path, dtype, shuffle, shape):
    shape = (min(shape[0], 41), *shape[1:])
    with stored(tmp_path / "x.h5", IMAGES.astype(dtype), chunks=shape, compression="gzip", shuffle=shuffle) as file:
        array = file["images"]
        assert chunks._shuffled(array) is shuffle
        for start, stop in ((0, 41), (3, 9), (40, 41), (6, 12)):
            found = np.empty((stop - start, *array.shape[1:]), dtype)
            assert chunks._fill(found, array, start, stop, shuffle)
            np.testing.assert_array_equal(found, array[start:stop])
            np.testing.assert_array_equal(chunks.read_rows(array, start, stop), found)


@pytest.mark.parametrize("options", [{}, {"compression": "lzf"}, {"compression": "gzip", "fletcher32": True}])
def test_other_filters_are_left_to_hdf5(tmp_path, options):
    with stored(tmp_path / "x.h5", **options) as file:
        assert chunks._shuffled(file["images"]) is None
        np.testing.assert_array_equal(chunks.read_rows(file["images"], 2, 30), IMAGES[2:30])


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        array = file.create_dataset("images", (20, 8, 8), "u1", chunks=(4, 8, 8), compression="gzip", fillvalue=7)
        array[:8] = 1
        found = chunks.read_rows(array, 0, 20)
    assert found[:8].max() == 1 and np.all(found[8:] == 7)


def test_the_standard_library_decodes_where_libdeflate_is_absent(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "deflate", None)
    with stored(tmp_path / "x.h5", compression="gzip", chunks=(5, 30, 20, 3)) as file:
        assert chunks._decompressor()[1] is __import__("zlib").error
        np.testing.assert_array_equal(chunks.read_rows(file["images"], 3, 17), IMAGES[3:17])


def test_images_are_kept_by_the_second_pass(tmp_path, monkeypatch):
    stored(tmp_path / "x.h5", IMAGES.astype(np.uint8), compression="gzip", chunks=(5, 30, 20, 3)).close()
    monkeypatch.setattr("metamed.readers.lazy._BLOCK_BYTES", 20_000)
    images = read(tmp_path / "x.h5").images
    first = np.concatenate([block for _, block in images.chunks(4)])
    assert images._kept is None
    np.testing.assert_array_equal(first, IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(np.concatenate([block for _, block in images.chunks(4)]), first)
    assert images._kept is not None


def test_threads_keep_the_order_and_draw_no_more_than_they_need():
    drawn = []
    items = (drawn.append(k) or k for k in range(50))
    results = in_order(lambda k: k * k, items, threads=3)
    assert next(results) == 0 and len(drawn) <= 5
    assert [0, *results] == [k * k for k in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda k: 1 / k, [1, 0, 2], threads=2))


def test_cores_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert cores() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cores() >= 1


@pytest.mark.parametrize("threads", ["1", "2"])
def test_meta_features_do_not_depend_on_threads(threads, monkeypatch):
    from metamed.dataset import Dataset
    from metamed.metafeatures import extract, kernels

    monkeypatch.setattr(kernels, "BLOCK", 5 * 30 * 20)
    data = Dataset("x", ArrayImages(IMAGES.astype(np.uint8).transpose(0, 3, 1, 2)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = extract(data, ("intensity", "texture"))
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert extract(data, ("intensity", "texture")) == alone
