"""Tasks of every kind on their way to a server and back: masks as a few pixels each, triplets, and bags."""

import io
import json
import warnings
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import scenes
from exchanged import KEY, add_run, network

from metamed import extract, recommend
from metamed.assessments import Triplets
from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import NotApplicable
from metamed.exchange import sending
from metamed.exchange.images import identified
from metamed.exchange.outgoing import make_plan
from metamed.exchange.publish import publish
from metamed.exchange.reading import read_table
from metamed.exchange.retrieve import retrieve
from metamed.exchange.runs import chances
from metamed.exchange.server import running
from metamed.exchange.tables import make_table
from metamed.judged import questions
from metamed.measures import evaluate, get_measure
from metamed.records import Run, Setup, Task
from metamed.splits import folds
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.store.labels import PIXELS, labels_file, labels_of, read_labels
from metamed.store.served import Served
from metamed.tasks import make_task

openml = pytest.importorskip("openml")
TABLE = {"output_format": "dataframe"} if openml.__version__ < "0.16" else {}
UNET, TRIPLETS, BAGS = Setup("unet"), Setup("triplet"), Setup("attention")
ABOUT = {"metamed": "0.1.0", "device": "cpu", "home": "/home/nurse"}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """(address, what it holds) of a server of its own, with the client pointed at it."""
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "default.db"))
    monkeypatch.setattr(sending, "PAUSE", 0.01)
    store = Store(tmp_path / "served.db")
    with running(store) as address:
        monkeypatch.setattr(openml.config, "server", f"{address}/api/v1/xml")
        monkeypatch.setattr(openml.config, "apikey", KEY)
        openml.config.set_root_cache_directory(str(tmp_path / "cache"))
        yield address, Served(store)


def compared(n: int = 40, size: int = 12) -> Dataset:
    """Images without labels, compared by several people whose names are nobody's business."""
    rng = np.random.default_rng(3)
    rows = np.array([rng.choice(n, 3, replace=False) for _ in range(400)])
    said = Triplets(*rows.T, np.array([f"nurse {k % 5}" for k in range(400)]))
    pixels = rng.integers(0, 255, (n, 1, size, size)).astype(np.uint8)
    return Dataset("compared", ArrayImages(pixels), triplets=said, card=Card(modality="x-ray"))


def bags(n: int = 40, grouped: bool = False, seed: int = 1) -> Dataset:
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(n), rng.integers(2, 6, n))
    groups = np.array([f"patient {k // 2}" for k in range(n)]) if grouped else None
    target = np.arange(n) // 2 % 2
    return Dataset("slides", ArrayImages(rng.normal(size=(len(of), 4)).astype(np.float32)), target, bags=of,
                   groups=groups, card=Card(classes=("benign", "malignant")))  # fmt: skip


def keep(store: Store, data: Dataset, task: Task, run: Run, setup: Setup, arrays: dict) -> Run:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    store.add_all([data, task, setup])
    store.add(run, artifacts={"predictions.npz": file.getvalue()})
    return run


def wrong_masks(data: Dataset, samples: np.ndarray, seed: int) -> np.ndarray:
    """The truth moved by a few pixels."""
    return np.stack([np.roll(data.masks[i], 1 + (i + seed) % 3, axis=i % 2) for i in samples])


def add_masks(store: Store, data: Dataset, setup: Setup = UNET, seed: int = 0, task: Task | None = None) -> Run:
    """A run as training leaves it: masks in bytes, and measures of whole masks."""
    task, arrays, scores = task or make_task(data), {}, {}
    for part, prefix in (("validation", "validation_"), ("test", "")):
        samples = np.array(getattr(task.folds[0], part))
        said, truth = wrong_masks(data, samples, seed), np.stack([data.masks[i] for i in samples])
        found = evaluate("segmentation", truth, said)
        scores |= {prefix + name: (found[name],) for name in (found if part == "test" else ["dice"])}
        arrays |= {part: said.astype(np.uint8), f"{part}_index": samples}
    return keep(store, data, task, Run(task.id, setup.id, seed, (1, 1), scores, 2.5, ABOUT), setup, arrays)


def add_choices(store: Store, data: Dataset, setup: Setup = TRIPLETS, seed: int = 0) -> Run:
    """A run on triplets: how probable it is that the first and that the second candidate is closer."""
    task, answer = make_task(data), questions(data.triplets)[1]
    rng, arrays, scores = np.random.default_rng(seed), {}, {}
    for part, prefix in (("validation", "validation_"), ("test", "")):
        samples = np.array(getattr(task.folds[0], part))
        first = np.clip(rng.normal(0.6 - 0.2 * answer[samples], 0.2), 0, 1).astype(np.float32)
        said = np.stack([first, 1 - first], axis=1)
        found = evaluate("similarity", answer[samples], said.astype(np.float16))
        scores |= {prefix + name: (value,) for name, value in found.items()}
        arrays |= {part: said.astype(np.float16), f"{part}_index": samples}
    return keep(store, data, task, Run(task.id, setup.id, seed, (1, 1), scores, 2.5, ABOUT), setup, arrays)


# ---- what is kept of masks and triplets


def test_a_few_pixels_of_every_mask_are_kept_the_same_on_every_machine():
    data = scenes(30, 24)
    labels = labels_of(data)
    assert len(labels.target) == 30 * 24 * 24, "small masks are kept whole"
    big = Dataset("big", ArrayImages(np.zeros((100, 1, 64, 64), np.uint8)),
                  masks=np.random.default_rng(0).integers(0, 3, (100, 64, 64)))  # fmt: skip
    one, two = labels_of(big), labels_of(replace(big, name="another"))
    assert len(one.target) == PIXELS and Counter(one.samples.tolist()) == dict.fromkeys(range(100), PIXELS // 100)
    assert np.array_equal(one.places, two.places)
    row, column = one.places.T
    assert np.array_equal(one.target, big.masks[one.samples, row, column])
    flat = one.samples.astype(int) * 64 * 64 + row * 64 + column
    assert len(np.unique(flat)) == PIXELS, "no pixel twice"
    assert len({tuple(map(tuple, one.places[one.samples == k])) for k in range(100)}) == 100, "others of each mask"
    share = np.bincount(column, minlength=64) / PIXELS
    assert abs(share - 1 / 64).max() < 0.004, "every column has its share"


def test_labels_of_a_kind_lie_in_a_file_of_their_own_and_name_nobody():
    store = Store.memory()
    for data in (scenes(20, 16), compared(), replace(scenes(20, 16), name="both", target=np.arange(20) % 2)):
        store.add(data)
        path = store.artifact(data.digest, labels_file(data.kind))
        mine, kept = labels_of(data), read_labels(path)
        assert all(np.array_equal(a, b) for a, b in zip(vars(mine).values(), vars(kept).values(), strict=True))
        assert b"nurse" not in path.read_bytes()


# ---- tables


def table_of(data: Dataset, task=None):
    return make_table(task or make_task(data), DatasetFacts.of(data), labels_of(data))


@pytest.mark.parametrize("make", [lambda: scenes(40, 24), lambda: scenes(40, 24, groups=False), compared,
                                  lambda: bags(43), lambda: bags(40, True)])  # fmt: skip
def test_the_servers_holdout_is_that_of_the_task(make):
    data = make()
    task = make_task(data)
    table = table_of(data, task)
    ((_, _, train, test),) = folds(28, None, len(table.rows))
    assert table.test_rows == [sorted(test.tolist())] and set(table.samples[test]) == set(task.folds[0].test)
    learned = set(table.samples[train]) - {-1} | set(table.labels.samples_of(table.beyond))
    assert learned == {*task.folds[0].train, *task.folds[0].validation}
    told = read_table(table.arff)
    assert told.facts == table.facts and told.task == task and told.task.id == task.id
    assert np.array_equal(told.samples, table.samples)
    known = table.samples >= 0
    assert told.places is None if table.places is None else np.array_equal(told.places[known], table.places[known])


def test_a_row_is_a_pixel_with_its_place_and_class():
    data = scenes(20, 16)
    table = table_of(data)
    assert table.inputs == ("row", "col") and table.classes == ("background", "disc", "bar")
    assert table.measure == "f_measure" and "One row a pixel" in table.description
    lines = [line.split(",") for line in table.arff.split("@DATA\n")[1].splitlines() if line[:1].isdigit()]
    assert len(lines) == 20 * 16 * 16
    for image, group, word, row, column, k in lines[::97]:
        assert table.classes[data.masks[int(image)][int(row), int(column)]] == k
        assert len(word) == 1 and word in "tve" and group.isdigit()


def test_pixels_of_volumes_say_their_slice():
    data = Dataset("volumes", ArrayImages(np.zeros((20, 1, 4, 6, 6), np.uint8)),
                   masks=np.random.default_rng(0).integers(0, 2, (20, 4, 6, 6)))  # fmt: skip
    split = make_task(scenes(20, 16, groups=False))
    table = table_of(data, replace(split, dataset="volumes", digest=data.digest))
    assert table.inputs == ("slice", "row", "col") and read_table(table.arff).places.shape[1] == 3


def test_a_row_is_a_triplet_and_says_nothing_of_who_answered():
    data = compared()
    table = table_of(data)
    rows, answer = questions(data.triplets)
    assert table.inputs == ("anchor", "first", "second") and table.classes == ("first", "second")
    lines = [line.split(",") for line in table.arff.split("@DATA\n")[1].splitlines() if line[:1].isdigit()]
    for triplet, _, _, anchor, first, second, k in lines:
        assert [int(anchor), int(first), int(second)] == rows[int(triplet)].tolist()
        assert k == ("first", "second")[answer[int(triplet)]]
    assert "nurse" not in table.arff and table.measure == "predictive_accuracy"


def test_with_images_every_image_of_a_row_is_told():
    told = identified(compared())[compared().digest]
    data = compared()
    table = make_table(make_task(data), DatasetFacts.of(data), labels_of(data), told)
    assert {"anchor_sha256", "first_path", "second_path"} < set(table.ignored)
    shown = table.told["first_sha256"][0]
    assert shown == told["sha256"][table.places[0, 1]] and shown in table.arff
    data = scenes(20, 16)
    told = identified(data)[data.digest]
    table = make_table(make_task(data), DatasetFacts.of(data), labels_of(data), told)
    assert table.told["sha256"][-1] == told["sha256"][table.samples[-1]]
    assert read_table(table.arff).task == make_task(data)


@pytest.mark.parametrize(("data", "k"), [(scenes(40, 16, groups=False), 4), (compared(), 10), (bags(60, True), 10),
                                         (bags(60), 5)])  # fmt: skip
def test_folds_that_no_server_makes_say_why(data, k):
    with pytest.raises(NotApplicable, match=r"no 5-fold|folds are not those that an OpenML server makes"):
        table_of(data, make_task(data, procedure=f"{k}-fold"))


def test_predictions_that_do_not_fit_say_why():
    pixel = np.array([[3, 3]])
    assert chances(np.full((4, 4), 2), pixel, 3).tolist() == [[0, 0, 1]]
    assert chances(np.array([0.25, 0.75], np.float16), None, 2).tolist() == [[0.25, 0.75]]
    for prediction, places, n, words in ((np.zeros((3, 3), int), pixel, 2, "masks of 3x3 pixels do not lie on"),
                                         (np.zeros((4, 4), int), None, 2, "do not lie on"),
                                         (np.full((4, 4), 2), pixel, 2, "class 2 in predicted masks of 2"),
                                         (np.zeros(3), None, 2, "3 probabilities a sample for 2 classes")):  # fmt: skip
        with pytest.raises(NotApplicable, match=words):
            chances(prediction, places, n)


# ---- out and back


def masks_by(store: Store, name: str, seed: int = 0) -> list[Run]:
    data = replace(scenes(24, 20, seed), name=name)
    store.add_metafeatures(data, extract(data, ["general"]))
    return [add_masks(store, data, UNET), add_masks(store, data, Setup("unetplusplus"), 1)]


def triplets_by(store: Store, name: str) -> list[Run]:
    data = replace(compared(), name=name)
    store.add_metafeatures(data, {"entropy.mean": 3.0})
    return [add_choices(store, data, TRIPLETS, seed) for seed in (0, 1)]


def bags_by(store: Store, name: str, seed: int = 0) -> list[Run]:
    data = replace(bags(seed=seed), name=name)
    store.add_metafeatures(data, extract(data, ["general"]))
    return [add_run(store, data, BAGS, seed), add_run(store, data, Setup("deep_sets"), seed)]


def same_evidence(here: Store, there: Store) -> None:
    ours, theirs = ({r.id: r for r in s.runs()} for s in (here, there))
    assert ours.keys() == theirs.keys() and ours
    for id, run in ours.items():
        assert theirs[id].evaluations == run.evaluations and theirs[id].seconds == run.seconds
        assert there.get(run.task) == here.get(run.task) and there.get(run.setup) == here.get(run.setup)
    assert {f.id: f for f in there.records("dataset")} == {f.id: f for f in here.records("dataset")}
    pairs = zip(*(sorted(s.measured().items()) for s in (here, there)), strict=True)
    assert all(a == b and repr(sorted(x.items())) == repr(sorted(y.items())) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("fill", [masks_by, triplets_by, bags_by])
def test_runs_of_a_kind_go_out_once_and_come_back_equal(house, fill):
    address, served = house
    here, there = Store.memory(), Store.memory()
    runs = fill(here, "sent")
    outcome = publish(here)
    assert outcome.sent == len(runs) and outcome.differences == [] and not outcome.offline and not outcome.waiting
    again = publish(here)
    assert again.sent == 0 and again.numbers == outcome.numbers
    elsewhere = Store.memory()
    fill(elsewhere, "sent")
    assert publish(elsewhere).sent == 0, "another machine with the same runs adopts their numbers"
    assert len(served.entities("task")) == 1 and len(served.runs(errors=True)) == len(runs)
    found = retrieve(there)
    assert found.new == len(runs) and found.left_out == {}
    same_evidence(here, there)


@pytest.mark.parametrize("make", [lambda s: masks_by(s, "drawn"), lambda s: triplets_by(s, "compared")])
def test_a_lost_answer_makes_nothing_twice_for_any_kind(house, make):
    address, served = house
    store = Store.memory()
    runs = make(store)
    with network(address) as proxy:
        proxy.faults = [("data/", "lose"), ("task/", "lose"), ("run/", "cut"), ("run/", "lose"), ("run/", "lose")]
        outcome = publish(store, to=proxy.url)
        assert not proxy.faults
    assert len(outcome.numbers) == len(runs) and outcome.differences == []
    assert len(served.runs(errors=True)) == len(runs) and len(served.entities("task")) == 1
    assert all(len(served.runs(tag=f"metamed.k.{run.id}", errors=True)) == 1 for run in runs)


def test_a_dry_run_lists_pixels_and_triplets_and_sends_no_image(tmp_path):
    store = Store.memory()
    masks_by(store, "drawn")
    triplets_by(store, "compared")
    add_run(store, bags(40, True), BAGS, task=make_task(bags(40, True), procedure="5-fold"))
    plan = make_plan(store)
    told = plan.describe()
    assert told[0].startswith("4 runs on 2 tasks with 3 flows")
    assert any("rows of image, group, parts, row, col, target; classes background, disc, bar" in line for line in told)
    assert any("rows of triplet, group, parts, anchor, first, second, target" in line for line in told)
    assert told[-1] == "stays offline: 1 runs: OpenML has no 5-fold cross-validation"
    plan.write(tmp_path)
    said = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"nurse" not in said
    pixels = scenes(24, 20).images.array
    assert pixels[0].tobytes() not in said and ",".join(map(str, pixels[0, 0, 0].tolist())).encode() not in said


@pytest.mark.parametrize("k", [4, 10])
def test_bags_on_the_servers_own_folds_go_out_and_come_back(house, k):
    here, there, data = Store.memory(), Store.memory(), bags(60)
    add_run(here, data, BAGS, task=make_task(data, procedure=f"{k}-fold"))
    grouped = bags(60, True)
    add_run(here, replace(grouped, name="grouped"), BAGS, task=make_task(grouped, procedure=f"{k}-fold"))
    outcome = publish(here)
    assert outcome.sent == 1 and outcome.differences == []
    (why,) = outcome.offline
    assert why == f"its {k} folds are not those that an OpenML server makes (patients kept together?)"
    assert retrieve(there).new == 1
    (run,) = there.runs()
    assert run.evaluations == here.get(run.id).evaluations and len(run.evaluations["auc"]) == k
    assert there.get(run.task) == here.get(run.task)


def test_small_folds_of_an_unsure_network_come_back_though_rounding_makes_ties(house):
    here, there = Store.memory(), Store.memory()
    data = bags(40)
    for seed in range(3):
        add_run(here, data, BAGS, seed, task=make_task(data, procedure="10-fold"), sharpen=0.002)
    outcome = publish(here)
    assert outcome.sent == 3 and outcome.differences == []
    assert retrieve(there).left_out == {}
    same_evidence(here, there)


def test_a_learning_curve_is_a_row_of_tasks(house):
    here, there, data = Store.memory(), Store.memory(), scenes(40, 16)
    for size in (10, 20, None):
        add_masks(here, data, task=make_task(data, size=size))
    outcome = publish(here)
    assert outcome.sent == 3 and outcome.differences == []
    assert len(house[1].entities("task")) == 3 and retrieve(there).new == 3
    assert {there.get(run.task).size for run in there.runs()} == {10, 20, None}
    same_evidence(here, there)


def test_what_a_server_says_of_pixels_is_dice_on_them_and_overlap_goes_along(house):
    store = Store.memory()
    data = scenes(24, 20)
    run = add_masks(store, data)
    number = publish(store).numbers[run.id]
    shown = openml.runs.get_run(number, ignore_cache=True)
    test = np.array(make_task(data).folds[0].test)
    truth, said = data.masks[test], wrong_masks(data, test, 0)
    scores = openml.evaluations.list_evaluations("f_measure", runs=[number], **TABLE)
    told = json.loads(scores["array_data"].iloc[0])
    both = [2 * ((truth == k) & (said == k)).sum() / ((truth == k).sum() + (said == k).sum()) for k in range(3)]
    assert told == pytest.approx(both, abs=1e-4), "masks this small are rows as a whole"
    (overlap,) = [v[0] for v in shown.fold_evaluations["jaccard"].values()]
    iou = get_measure("iou")(truth.reshape(1, 1, -1), said.reshape(1, 1, -1))
    assert overlap == pytest.approx(iou)
    assert run.evaluations["dice"][0] != pytest.approx(np.mean(both[1:]), abs=1e-3), "of images, not of all pixels"


def test_anybodys_model_of_pixels_is_evidence_under_the_servers_names_alone(house):
    from sklearn.tree import DecisionTreeClassifier

    store, there = Store.memory(), Store.memory()
    add_masks(store, scenes(24, 20))
    publish(store)
    (row,) = openml.tasks.list_tasks(**TABLE).itertuples()
    task = openml.tasks.get_task(row.tid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        openml.runs.run_model_on_task(DecisionTreeClassifier(max_depth=4), task, avoid_duplicate_runs=False).publish()
    assert retrieve(there, task=row.tid).new == 2
    (foreign,) = [run for run in there.runs() if there.get(run.setup).method != "unet"]
    assert "openml.f_measure" in foreign.evaluations and "openml.predictive_accuracy" in foreign.evaluations
    assert not {"auc", "accuracy", "dice"} & set(foreign.evaluations), "not what those mean of masks"


def test_a_published_run_on_masks_becomes_a_setup_that_openml_runs(house):
    import metamed.exchange.extension  # noqa: F401 (registers)
    from metamed.exchange.images import offer

    store, data = Store.memory(), scenes(20, 16)
    setup = Setup("unet", {"width": 8, "epochs": 1})
    run = add_masks(store, data, setup)
    number = publish(store).numbers[run.id]
    assert openml.runs.initialize_model_from_run(number) == setup
    task = openml.tasks.get_task(openml.runs.get_run(number, ignore_cache=True).task_id)
    offer(data)
    done = openml.runs.run_model_on_task(setup, task, seed=1, avoid_duplicate_runs=False)
    _, tested = task.get_train_test_split_indices()
    assert len(done.data_content) == len(tested)
    shown = openml.runs.get_run(done.publish().run_id, ignore_cache=True)
    assert "f_measure" in shown.evaluations


def test_a_house_that_retrieves_recommends_the_same(house):
    here, there = Store.memory(), Store.memory()
    for k in range(3):
        masks_by(here, f"drawn.{k}", seed=k)
        bags_by(here, f"slides.{k}", seed=k)
    publish(here)
    assert retrieve(there).left_out == {}
    same_evidence(here, there)
    for new in (scenes(24, 20, 99), replace(bags(50, seed=7), name="new slides")):
        ours, theirs = (asdict(recommend(new, store)) for store in (here, there))
        assert repr(ours) == repr(theirs) and ours["ranking"]
