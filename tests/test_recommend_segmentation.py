"""Recommending for segmentation: labels asked and told, images without masks, more masks, and a reference run."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Card, Dataset, Split
from metamed.errors import NotApplicable, UnknownName
from metamed.exams.examples import is_own, tables_of
from metamed.measures import evaluate
from metamed.metafeatures import extract
from metamed.recommend import Z90, recommend, reference, segmentation, with_own_runs
from metamed.recommend.segmentation import Curve, curve_slopes, known_of_label, more_masks, steps_of
from metamed.records import Candidate, Run, Setup, Task
from metamed.report import render
from metamed.store import Store

SMALL, LARGE = Setup("unet", {"width": 8}), Setup("unet", {"width": 32})
SIZES = (20, 50, None)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path))


def outlined(n: int, seed: int, name: str, label: str = "liver") -> Dataset:
    """Random patterns that no two datasets share, with a square to be outlined."""
    rng = np.random.default_rng(seed)
    images = np.kron(rng.integers(0, 255, (n, 1, 8, 8)), np.ones((2, 2))).astype(np.uint8)
    masks = np.zeros((n, 16, 16), np.uint8)
    masks[:, 4 : 6 + seed % 6, 4:10] = 1
    card = Card(modality="ct", classes=("background", label))
    return Dataset(name, ArrayImages(images), masks=masks, groups=np.arange(n) // 2, card=card)


def dice(kind: str, setup: Setup, n: int, seed: int) -> float:
    """Errors that fall as n ** -0.5, tumours twice as hard, the wide network a fifth better."""
    error = (2 if kind == "tumour" else 1) * (0.8 if setup is LARGE else 1) * (1 + 0.2 * (seed % 3)) / math.sqrt(n)
    return 1 - error


@pytest.fixture(scope="module")
def known() -> Store:
    """Runs of two setups with three numbers of masks on six datasets. Synthetic: nothing was trained."""
    store = Store.memory()
    for number in range(6):
        kind = "tumour" if number % 2 else "liver"
        data = outlined(80 + 10 * number, number, f"set{number}", kind)
        store.add_metafeatures(data, extract(data, ["general", "intensity", "segmentation"]))
        for size in SIZES:
            folds = (Split(tuple(range(16)), tuple(range(16, 20)), tuple(range(60, 80))),)
            task = Task(data.name, data.digest, "segmentation", "masks", size, "holdout", "dice", folds)
            store.add(task)
            for setup in (SMALL, LARGE):
                score = dice(kind, setup, size or 0.8 * len(data.images), number)
                seconds = 6.0 if setup is SMALL else 600.0
                store.add_all([setup, Run(task.id, setup.id, 0, (1,), {"dice": (score,)}, seconds, {"device": "cpu"})])
    return store


# ---- labels


def test_the_label_decides_what_is_expected(known):
    data = outlined(100, 20, "new", "class 1")
    easy, hard = (recommend(data, known, label_kind=[k]).ranking[0].score for k in ("organ", "tumour"))
    assert easy > hard + 0.03
    named = recommend(outlined(100, 20, "new", "tumour"), known)
    assert named.ranking[0].score == pytest.approx(hard)
    assert "tumour: tumour (by name)" in named.explanation["labels"][0]


def test_an_unknown_label_is_asked_for(known):
    answer = recommend(outlined(100, 20, "new", "class 1"), known)
    assert any("--label-kind" in w and "class 1" in w for w in answer.warnings)
    assert not any("--label-kind" in w for w in recommend(outlined(100, 20, "new"), known).warnings)
    with pytest.raises(UnknownName, match="kind of label"):
        recommend(outlined(100, 20, "new"), known, label_kind=["tumor"])
    with pytest.raises(NotApplicable, match="label kinds"):
        segmentation.labels_of(outlined(9, 1, "x"), "classification", ["organ"])


# ---- images alone


def test_images_without_masks_are_answered_for(known):
    data = replace(outlined(100, 20, "new"), masks=None, card=Card(modality="ct"))
    answer = recommend(data, known, kind="segmentation", label_kind=["organ"])
    assert answer.kind == "segmentation" and answer.measure == "dice"
    assert {c.setup for c in answer.ranking} == {SMALL, LARGE} and 0 < answer.ranking[0].score < 1
    assert answer.explanation["labels"] == ["the label: organ (asked)"]
    assert any("no masks" in w for w in answer.warnings)
    lines = answer.explanation["masks"]
    assert [line.split()[0] for line in lines[:3]] == ["20", "50", "80"]  # a fifth of 100 is kept for the test
    scores = [float(line.split(": unet ")[1].split()[0]) for line in lines[:3]]
    assert scores == sorted(scores) and scores[-1] == pytest.approx(answer.ranking[0].score, abs=0.02)
    assert "masks and one reference run" in lines[-1]
    text = render(answer)
    assert "Masks\n  - 20 masks to learn from: unet" in text and "Labels\n  - the label: organ (asked)" in text


def test_class_labels_are_no_masks_and_vectors_no_images(known):
    data = replace(outlined(100, 20, "new"), masks=None, target=np.arange(100) % 2)
    assert recommend(data, known, kind="segmentation").kind == "segmentation"
    vectors = Dataset("v", ArrayImages(np.zeros((50, 9), np.float32)), target=np.arange(50) % 2)
    with pytest.raises(NotApplicable, match="it has no images"):
        recommend(vectors, known, kind="segmentation")


# ---- more masks


def test_the_learning_curve_of_the_evidence_is_found(known):
    rows = known.example_rows("segmentation", "dice")
    samples = {f.digest: f.n_samples for f in known.records("dataset")}
    assert all(few < many and factor > 1 for _, few, many, factor in steps_of(rows, samples))
    curve = Curve.of(rows, samples)
    assert curve.slope == pytest.approx(0.5) and curve.low == pytest.approx(0.5) and curve.families == 6
    assert curve.at(0.9, 4) == pytest.approx((0.95, 0.95, 0.95))
    assert Curve.of([r for r in rows if r["size"] is None], samples) is None
    assert Curve.of(rows, samples, "unet") == curve and Curve.of(rows, samples, "otsu_position") is None


@given(st.floats(0, 1), st.floats(0.1, 10), st.floats(-0.2, 1), st.floats(0, 0.5))
def test_a_curve_never_leaves_its_ends(score, factor, slope, width):
    middle, low, high = Curve(slope, slope - width, slope + width, 5).at(score, factor)
    assert low <= middle + 1e-12 and middle <= high + 1e-12 and high <= 1
    assert Curve(slope, slope, slope, 5).at(score, 1)[0] == pytest.approx(score)


def test_slopes_are_means_of_families_and_ended_curves_do_not_count_twice():
    steps = [("a", 0.8, 0.9, 4.0), ("a", 0.9, 0.9, 4.0), ("b", 0.999, 1.0, 2.0)]
    assert curve_slopes(steps) == pytest.approx({"a": 0.25, "b": 0.0})


def test_without_sizes_in_the_evidence_it_is_said():
    first = Candidate(SMALL, 0.8, 0.7, 0.9)
    assert "cannot be said" in more_masks(first, 80, 100, None, True)[0] and more_masks(None, 80, 100, None, True) == []
    lines = more_masks(first, 100, 100, Curve(0.5, 0.4, 0.6, 7), True)
    assert lines[0].startswith("100 masks to learn from (all that are here): unet 0.800 [0.800, 0.800]")
    assert lines[1].startswith("200 masks to learn from: unet 0.859 [") and "7 families" in lines[-1]
    meant = more_masks(first, 50, 100, Curve(0.5, 0.4, 0.6, 7), True)
    assert meant[0].startswith("100 masks to learn from (all that are here): unet 0.859")


def test_scores_stand_for_the_masks_that_runs_had(known):
    rows = known.example_rows("segmentation", "dice")
    samples = {f.digest: f.n_samples for f in known.records("dataset")}
    assert segmentation.masks_meant(rows, samples, 1000) == 84  # 64 to 104 of 80 to 130 images
    assert segmentation.masks_meant(rows, samples, 30) == 30 and segmentation.masks_meant([], samples, 30) == 30
    few = [row for row in rows if row["size"] == 20]
    assert segmentation.masks_meant(few, samples, 1000) == 20


def test_a_dice_never_leaves_its_range():
    assert Curve(-0.2, -0.8, 0.1, 5).at(0.5, 4)[:2] == (pytest.approx(1 - 0.5 * 4**0.2), 0.0)


# ---- several labels, and runs on the target


@pytest.fixture
def tried(known) -> tuple[Store, Dataset]:
    """Evidence with two runs on a dataset of two labels, whose masks were kept: the wide network misses label 2 in a
    third of the images, the small one another third and all of label 1 at one edge."""
    single = outlined(60, 20, "new")
    masks = np.array(single.masks)
    masks[:, 12:15, 2:6] = 2
    data = replace(single, masks=masks, card=replace(single.card, classes=("background", "liver", "tumour")))
    store = Store.memory()
    store.merge(known, artifacts=False)
    store.add_metafeatures(data, extract(data, ["general", "intensity", "segmentation"]))
    parts = tuple(range(24)), tuple(range(24, 36)), tuple(range(36, 60))
    task = Task(data.name, data.digest, "segmentation", "masks", None, "holdout", "dice", (Split(*parts),))
    store.add(task)
    for setup, blind in ((SMALL, 0), (LARGE, 1)):
        said = masks.copy()
        said[blind::3][said[blind::3] == 2] = 0
        said[:, :, 4] = 0 if setup is SMALL else said[:, :, 4]
        kept = {f"{name}{end}": said[list(part)] if not end else np.array(part)
                for name, part in (("validation", parts[1]), ("test", parts[2])) for end in ("", "_index")}  # fmt: skip
        file = io.BytesIO()
        np.savez(file, **kept)
        values = {n: (v,) for n, v in evaluate("segmentation", masks[36:], said[36:]).items()}
        run = Run(task.id, setup.id, 0, (1,), values, 6.0, {"device": "cpu"})
        store.add_all([setup])
        store.add(run, artifacts={"predictions.npz": file.getvalue()})
    return store, data


def test_each_of_several_labels_has_its_own_dice(tried, known):
    store, data = tried
    liver, tumour = recommend(data, store).explanation["labels"]
    assert liver.startswith("liver: organ (by name)") and liver.endswith("unet: Dice 1.000 reached here")
    assert tumour.startswith("tumour: tumour (by name)") and tumour.endswith("unet: Dice 0.667 reached here")
    expected = [float(line.split("Dice ")[1].split()[0]) for line in recommend(data, known).explanation["labels"]]
    assert expected[0] > expected[1] + 0.03, "the label's kind tells how hard it is"
    alone = replace(data, masks=None)
    told = [float(line.split("Dice ")[1].split()[0])
            for line in recommend(alone, known, kind="segmentation").explanation["labels"]]  # fmt: skip
    assert told[0] > told[1] + 0.03


def test_dice_of_a_label_that_another_setup_reached_moves_what_is_expected(tried):
    store, data = tried
    own = [row for row in store.example_rows("segmentation", "dice") if row["dataset"] == data.digest]
    asked = []

    def ask(facts, reached):
        asked.append((facts["label_kind"], reached))
        return Candidate(LARGE, 0.5, 0.4, 0.6)

    labels, _ = segmentation.labels_of(data, "segmentation")
    only = [row for row in own if row["setup"] == SMALL.id]
    lines = segmentation.by_label(data, labels, Candidate(LARGE, 0.8, 0.7, 0.9), only, store, ask)
    assert [kind for kind, _ in asked] == ["organ", "tumour"] and lines[0].endswith(
        "unet: Dice 0.500 [0.400, 0.600] expected"
    )
    assert 0.8 < asked[0][1][SMALL.id] < 1 and asked[1][1][SMALL.id] < 0.7
    assert segmentation.by_label(data, labels, Candidate(LARGE, math.nan, 0, 1), own, store, ask) == [
        str(n) for n in labels
    ]


def test_what_setups_reach_together_is_said(tried, known):
    store, data = tried
    line = recommend(data, store).explanation["masks"][-1]
    assert (
        line.startswith("a vote of the setups that were run here (unet 0.") and "the best of them alone 0.833" in line
    )
    assert segmentation.vote(data, known) == [] and segmentation.vote(replace(data, masks=None), store) == []


def test_the_interval_of_a_dice_is_that_of_a_mean_over_images(tried):
    store, data = tried
    rows = [row for row in store.example_rows("segmentation", "dice") if row["dataset"] == data.digest]
    (row,) = (row for row in rows if row["setup"] == LARGE.id)
    found = np.where(np.arange(24) % 3 == 1, 0.5, 1.0)  # mean over the two labels, each test image
    patients = found.reshape(12, 2).mean(axis=1)
    plain = patients.var(ddof=1) / 12
    got = segmentation.sampling_variance(row["score"], [row], data, store)
    assert 2 * plain < got < 2.4 * plain, "of both test parts, a little more since twelve patients tell it"
    bare = segmentation.sampling_variance(0.8, [row], replace(data, name="other", masks=1 - data.masks % 2), store)
    assert bare == pytest.approx(2 * segmentation.SPREAD * 0.16 / 6), "a fifth of thirty patients"
    first = recommend(data, store).ranking[0]
    assert first.setup == LARGE and first.high - first.low < 0.2
    candidate = Candidate(LARGE, 0.5, 0.0, 1.0)
    (alone,) = with_own_runs([candidate], {LARGE.id: rows[-1:]}, 0.0, replace(data, masks=None), "segmentation", store)
    half = Z90 * math.sqrt(2 * segmentation.SPREAD * alone.score * (1 - alone.score) / 6)
    assert alone.score - alone.low == pytest.approx(half), "images alone that are known too"


# ---- a reference run


def test_what_is_known_narrows_the_intervals(known):
    table = next(t for t in tables_of(known, "segmentation", "dice") if is_own(t))
    words, widths = zip(*known_of_label(table, SMALL.id), strict=True)
    assert words[0] == "nothing of the label" and words[-1] == "masks and one reference run"
    assert widths[1] < widths[0] and widths[-1] < widths[1]


def test_the_reference_is_one_that_tells_much_and_costs_little(known):
    table = next(t for t in tables_of(known, "segmentation", "dice") if is_own(t))
    assert reference.reference_of(table, {SMALL.id: 0.1, LARGE.id: 10.0}) == SMALL.id
    assert reference.reference_of(table, {LARGE.id: 0.1}) == LARGE.id
    assert reference.reference_of(table, {SMALL.id: 9.0}) is None


def test_a_reference_run_moves_the_others(known, monkeypatch):
    data = outlined(100, 20, "new")
    before = {c.setup: c for c in recommend(data, known).ranking}
    keep, asked = Store.memory(), []

    def run_setup(setup, task, dataset, store, **options):
        asked.append((setup, task.digest))
        run = Run(task.id, setup.id, 0, (1,), {"dice": (0.4,)}, 6.0, {"device": "cpu"})
        store.add_all([dataset, task, setup, run])
        return run

    folds = (Split(tuple(range(60)), tuple(range(60, 80)), tuple(range(80, 100))),)
    task = Task(data.name, data.digest, "segmentation", "masks", None, "holdout", "dice", folds)
    monkeypatch.setattr("metamed.experiments.run_setup", run_setup)
    monkeypatch.setattr("metamed.tasks.make_task", lambda dataset: task)
    answer = recommend(data, known, reference_run=keep)
    assert asked == [(SMALL, data.digest)] and len(keep.runs()) == 1
    after = {c.setup: c for c in answer.ranking}
    assert after[SMALL].score == pytest.approx(0.4) and after[LARGE].score < before[LARGE].score - 0.2
    assert "1 runs on it are used" in answer.explanation["why"][0] and not known.has(task.id)


def test_a_reference_run_needs_masks_and_something_short(known):
    data = outlined(100, 20, "new")
    with pytest.raises(NotApplicable, match="has no masks"):
        recommend(replace(data, masks=None), known, kind="segmentation", reference_run=Store.memory())
    with pytest.raises(NotApplicable, match="at most 0.0001 CPU minutes"):
        recommend(data, known, budget=0.0001, reference_run=Store.memory())


# ---- real sets


@pytest.mark.parametrize("name", ["kvasir_seg_polyps", "acdc_cardiac_mri_slices"])
def test_real_sets_are_answered_for_with_masks_and_without(shared, name):
    from metamed.readers import read

    data = read(shared / "data" / "seg" / f"{name}.h5")
    for dataset in (data, replace(data, masks=None)):
        answer = recommend(dataset, Store.embedded(), kind="segmentation", as_unknown=True, max_samples=100)
        assert answer.ranking and answer.explanation["labels"] and answer.explanation["masks"]
        assert all(0 <= c.low <= c.score <= c.high <= 1 for c in answer.ranking if math.isfinite(c.score))


def test_siblings_that_outline_the_same_count_once():
    from metamed.exams.tables import Table
    from metamed.metalearner.levels import expected_scores

    kinds = np.array(["lesion", "organ", "lesion", "organ", "cells"], dtype=object)
    scores = np.array([[0.30, 0.34], [0.90, 0.92], [0.70, 0.74], [0.86, 0.88], [0.80, 0.83]])

    def table(rows: list[int]) -> Table:
        return Table("t", "dice", tuple(f"d{k}" for k in range(len(rows))), ("a", "b"), scores[rows],
                     tuple(f"f{i}" for i in rows), {"label_kind": kinds[rows]})  # fmt: skip

    asked = Table("t", "dice", ("x",), ("a", "b"), np.full((1, 2), np.nan), ("x",), {"label_kind": kinds[:1]})
    rows = [0, 0, 0, 0, 0, 1, 2, 3, 4]
    once, five = (expected_scores(table(r), asked) for r in (sorted(set(rows)), rows))
    strangers = replace(table(rows), families=tuple("abcdefghi"))
    assert abs(five - once).max() < 0.4 * abs(expected_scores(strangers, asked) - once).max()
