"""Reading answers: long and wide tables, archives, slots, what is left out and said."""

import gzip

import h5py
import numpy as np
import pytest

from metamed.errors import ReadError
from metamed.readers import inspect, read, read_assessments
from metamed.readers.answers import read_table

LONG = """anchor,closer,farther,annotator,side,condition,time_ms,confidence
0,1,2,ann,left,plain,1500,1
1,2,0,bob,right,game,900,0.5
"""


def table(tmp_path, text, name="x.csv"):
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def dataset(path, **arrays):
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8), np.uint8)
    with h5py.File(path, "w") as file:
        file["images"] = images
        for key, values in arrays.items():
            file[key.replace("__", "/")] = values
    return path


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_long_triplets(tmp_path, name):
    found = read_table(table(tmp_path, LONG, name), n_images=3)
    t = found.triplets
    assert t.closer.tolist() == [1, 2] and t.annotator.tolist() == ["ann", "bob"] and t.side.tolist() == [0, 1]
    assert t.time.tolist() == [1.5, 0.9] and t.condition.tolist() == ["plain", "game"] and t.confidence[1] == 0.5
    assert t.persistent.all() and found.found == {"single answer": 2}


def test_names_become_indices(tmp_path):
    text = "anchor;closer;farther;worker\nb;a;zz\nb;a;c;w1\nb;q;c;w1\n"
    found = read_table(table(tmp_path, text), names=["img/a.png", "img/b.png", "img/c.png"])
    assert found.triplets.anchor.tolist() == [1] and found.triplets.closer.tolist() == [0]
    assert found.found == {"row with another number of cells": 1, "unknown image": 1, "single answer": 1}


def test_what_was_shown_left_and_right(tmp_path):
    text = "anchor,left,right,answer,annotator\n0,1,2,left,a\n0,1,2,RIGHT,a\n0,1,2,2,b\n0,1,2,,b\n"
    found = read_table(table(tmp_path, text), n_images=3)
    assert found.triplets.closer.tolist() == [1, 2, 2] and found.triplets.side.tolist() == [0, 1, 1]
    assert found.found["no answer"] == 1


def test_wide_triplets(tmp_path):
    found = read_table(table(tmp_path, "anchor,left,right,ann,bob\n0,1,2,left,right\n1,0,2,,left\n"), n_images=3)
    assert found.triplets.annotator.tolist() == ["ann", "bob", "bob"] and found.triplets.closer.tolist() == [1, 2, 0]
    assert found.found["no answer"] == 1


def test_long_ratings_with_a_condition_of_ones_choice(tmp_path):
    text = "image,rater,feature,score,team\nx,ann,size,1,red\ny,ann,size,2,blue\nx,bob,size,?,red\n"
    found = read_table(table(tmp_path, text), condition="Team")
    assert found.names == ("x", "y") and found.ratings.score.tolist() == [1, 2]
    assert found.ratings.condition.tolist() == ["red", "blue"] and found.found["no score"] == 1
    with pytest.raises(ReadError, match="no column 'arm' to compare by. Found: image"):
        read_table(tmp_path / "x.csv", condition="arm")


def test_wide_ratings_by_attribute_and_by_annotator(tmp_path):
    rows = "\n".join(f"{i},ann,{i % 3},{i % 4},{i / 7}" for i in range(40))
    found = read_table(table(tmp_path, "image,annotator,size,colour,diameter\n" + rows))
    assert set(found.ratings.attribute) == {"size", "colour"} and len(found.ratings) == 80
    assert "columns not used: diameter" in found.notes
    rows = "\n".join(f"{i},{i % 3},{i % 2}" for i in range(40))
    slots = read_table(table(tmp_path, "image,border_1,border_2\n" + rows))
    assert set(slots.ratings.annotator) == {"1", "2"} and not slots.ratings.persistent.any()
    assert set(slots.ratings.attribute) == {"border"} and any("slots" in note for note in slots.notes)
    people = read_table(table(tmp_path, "image,rater1,rater2\n" + rows)).ratings
    assert set(people.annotator) == {"rater1", "rater2"} and people.persistent.all()


def test_numbers_within_groups_and_platforms(tmp_path):
    text = "image,annotator,group,score\n" + "".join(
        f"{i},{who},{group},{i}\n" for group in ("a", "b", "mturk") for who in (1, 2) for i in range(3)
    )
    found = read_table(table(tmp_path, text))
    assert len(set(found.ratings.annotator)) == 6
    assert set(found.ratings.annotator[~found.ratings.persistent]) == {"mturk/1", "mturk/2"}
    assert any(note.startswith("2 of 6 annotators are slots (mturk/1, mturk/2)") for note in found.notes)
    text = text.replace("mturk", "Hamtramck hospital")  # holds the letters of a platform, and is none
    assert read_table(table(tmp_path, text)).ratings.persistent.all()


def test_rankings(tmp_path):
    text = "anchor,annotator,candidate,rank\n0,ann,1,0\n0,ann,2,1\n0,ann,3,1\n"
    found = read_table(table(tmp_path, text), n_images=4)
    assert found.triplets.farther.tolist() == [2, 3] and len(found.rankings) == 3
    text = "case,reader_slot,rank,diagnosis\nx,0,0,eczema\nx,0,1,psoriasis\n"
    found = read_table(table(tmp_path, text))
    assert found.triplets is None and found.ratings.attribute.tolist() == ["eczema", "psoriasis"]
    assert not found.ratings.persistent.any()


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(ReadError, match="without rows"):
        read_table(table(tmp_path, "image,score\n"))
    with pytest.raises(ReadError, match="no answers in columns a, b"):
        read_table(table(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(ReadError, match="none of 1 triplets can be used: 1 × unknown image"):
        read_table(table(tmp_path, "anchor,closer,farther\n1,2,9\n"), n_images=3)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ReadError, match="not a table that can be read"):
        read_table(tmp_path / "b.csv")


def test_in_an_archive(tmp_path):
    path = dataset(
        tmp_path / "x.h5", triplets=[[0, 1, 2], [0, 9, 2], [3, 3, 2]], annotators=["a", "a", "b"], sides=[0, 1, 1]
    )
    data = read(path)
    assert data.triplets.anchor.tolist() == [0, 3] and data.triplets.gold.tolist() == [-1, 1]
    assert any("1 × unknown image (left out)" in note for note in data.assumptions)
    path = dataset(tmp_path / "y.h5", triplets__anchor=[0, 1], triplets__closer=[1, 2], triplets__farther=[2, 0],
                   triplets__annotator=["a", "b"], triplets__time=[1.0, 2.0])  # fmt: skip
    assert read(path).triplets.time.tolist() == [1, 2]
    rows = np.array([(0, b"a", b"size", 2.0), (1, b"b", b"size", 3.0)],
                    [("image", int), ("annotator", "S3"), ("attribute", "S9"), ("score", float)])  # fmt: skip
    assert read(dataset(tmp_path / "z.h5", ratings=rows)).ratings.annotator.tolist() == ["a", "b"]


def test_scores_in_columns_of_an_array(tmp_path):
    scores = np.arange(18).reshape(6, 3) % 4
    path = dataset(tmp_path / "x.h5", border=scores, boxes=scores, colour=scores + 0.5)
    ratings = read(path).ratings
    assert set(ratings.attribute) == {"border", "colour"} and not ratings.persistent.any() and len(ratings) == 36
    with h5py.File(path, "a") as file:
        file["border"].attrs["annotators"] = ["ann", "bob", "eve"]
        del file["colour"]
    assert set(read(path).ratings.annotator) == {"ann", "bob", "eve"} and read(path).ratings.persistent.all()


def test_tables_beside_the_images(tmp_path):
    path = dataset(tmp_path / "x.h5", image_id=["p", "q", "r", "s", "t", "u"], triplets=[[0, 1, 2]], annotators=[7])
    table(tmp_path, "anchor,closer,farther,annotator\nq,p,u,ann\nq,p,?,ann\n", "x.triplets.csv")
    data = read(path)
    assert data.triplets.farther.tolist() == [2, 5] and data.triplets.annotator.tolist() == ["7", "ann"]
    assert {"answers from x.triplets.csv", "1 × unknown image (left out)"} <= set(data.assumptions)


def test_real_tables(shared):
    folder = shared / "data" / "crowd"
    found = {p.name.split(".")[0]: read_table(p) for p in sorted(folder.glob("*.csv.gz"))}
    sizes = {name: len(a.ratings) for name, a in found.items()}
    assert sizes == {"anesthesia_ratings": 315, "caries_xray_ratings": 19295, "dermatology_ddx_rankings": 15748,
                     "enhance_skin_abc": 57408, "lidc_nodule_ratings": 6859 * 9}  # fmt: skip
    assert found["anesthesia_ratings"].ratings.persistent.all() and found["anesthesia_ratings"].n_images == 45
    assert not found["lidc_nodule_ratings"].ratings.persistent.any()
    enhance = found["enhance_skin_abc"].ratings
    assert {str(a).rpartition("/")[0] for a in enhance.annotator[~enhance.persistent]} >= {"mturk"}
    assert enhance.persistent.sum() > 30000
    crowd = read(folder / "enhance_isic2017_crowd_images.h5").ratings
    assert set(crowd.attribute) == {"asymmetry", "border", "color"} and not crowd.persistent.any()


def test_other_real_files_hold_no_answers(shared):
    for path in sorted((shared / "data").glob("*/*.h5")):
        if path.parent.name in ("cls", "seg"):
            data = read(path)
            assert data.triplets is None and data.ratings is None, path.name


def test_tables_in_a_folder_of_images(tmp_path):
    from PIL import Image

    for name in ("a/x.png", "b/y.png", "b/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    table(tmp_path, "image,annotator,attribute,score,arm\nx,ann,size,1,game\nb/z.png,bob,size,2,plain\n", "ratings.csv")
    data = read(tmp_path, condition="arm")
    assert data.ratings.image.tolist() == [0, 2] and data.ratings.condition.tolist() == ["game", "plain"]
    found = read_assessments(tmp_path)
    assert len(found.ratings) == 2 and found.labels.tolist() == [0, 1, 1]
    assert ("ratings", "2 by 2 annotators") in inspect(data)


def test_assessments_of_anything(tmp_path, shared):
    path = shared / "data" / "crowd" / "enhance_skin_abc.csv.gz"
    found = read_assessments(path, condition="source", labels="melanoma")
    assert set(found.ratings.condition) == {"crowd", "student"} and len(found.labels) == found.n_images
    assert np.nansum(found.labels) == 322 and np.isnan(found.labels).sum() == 200  # PH2's lesions have no label here
    with pytest.raises(ReadError, match="no answers by people"):
        read_assessments(dataset(tmp_path / "x.h5"))
