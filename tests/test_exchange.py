"""Records as OpenML's entities and back, without a server."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from exchanged import SETUPS, add_run, images
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.dataset import Card, Dataset, Split
from metamed.errors import MetamedError, NotApplicable, PublishError, ReadError
from metamed.exchange.client import Server, find_server
from metamed.exchange.entities import make_flow, settings_of, setup_from
from metamed.exchange.measuring import Fold, measured, read_predictions, right, undecided
from metamed.exchange.metatables import MetaTable, read_metatable
from metamed.exchange.outgoing import make_plan
from metamed.exchange.parts import folds_of, part_words
from metamed.exchange.reading import read_table
from metamed.exchange.retrieve import opaque
from metamed.exchange.runs import read_record, record_json, run_document, server_measures
from metamed.exchange.tables import make_table
from metamed.measures import evaluate
from metamed.records import Run, Setup, Source, Task
from metamed.splits import crossvalidation, folds
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.store.labels import FILE, labels_of, read_labels
from metamed.store.limits import FLOW_NAME, NAME, SETTING, checked, dataset_name, setup_string
from metamed.tasks import make_task

RUN = Run("0" * 40, SETUPS[2].id, 3, (1, 1, 1), {"auc": (0.5,)}, 2.5, {"device": "cpu"}, ("ab",))
LATIN = re.compile(r"[\x00-\x7f]*").fullmatch


def table_of(data: Dataset, task: Task | None = None):
    return make_table(task or make_task(data), DatasetFacts.of(data), labels_of(data))


# ---- datasets and tasks


@pytest.mark.parametrize(("n", "classes"), [(20, 2), (43, 2), (61, 3), (200, 4)])
def test_the_ordered_holdout_of_a_server_tests_on_the_same_samples(n, classes):
    data = images(n=n, classes=classes)
    table = table_of(data)
    ((_, _, train, test),) = folds(28, None, len(table.rows))
    fold = table.task.folds[0]
    assert sorted(table.rows[test].tolist()) == sorted(fold.test)
    assert sorted(s for s in table.rows[train].tolist() if s >= 0) == sorted((*fold.train, *fold.validation))
    assert table.test_rows == [sorted(test.tolist())]


def test_a_few_training_samples_may_find_no_place_and_that_is_said():
    """Patients of two and four images: no choice of them makes exactly a fifth."""
    data = images(n=48, classes=2)
    task = make_task(data)
    table = table_of(data, task)
    assert len(task.folds[0].test) == 8 and len(table.beyond) == 40 - 4 * 8 - 5 and (table.rows >= 0).all()
    assert "3 training images found no place" in table.description
    assert table.test_rows == [sorted(test.tolist()) for _, _, _, test in folds(28, None, len(table.rows))]
    assert read_table(table.arff)[1] == task


def test_a_table_says_nothing_of_images_or_patients_beyond_numbers():
    data = images()
    text = table_of(data, make_task(data)).arff
    assert "patient" not in text and "/home" not in text
    rows = [line.split(",") for line in text.split("@DATA\n")[1].splitlines() if line and not line.startswith("%")]
    groups = [int(row[1]) for row in rows if row[1] != "?"]
    assert groups == sorted(groups) and groups[0] == 0, "groups are numbered as they come: their own order stays here"
    assert {row[0] for row in rows} - {"?"} == {str(i) for i in range(40)}


def test_a_table_brings_the_records_back():
    data = replace(images(), card=replace(images().card, url="https://example.org/scans"))
    task = make_task(data, size=20)
    facts, back, rows, _ = read_table(table_of(data, task).arff)
    assert back == task and back.id == task.id
    assert facts == DatasetFacts.of(data)
    assert (rows >= 0).sum() == 20 + len(task.folds[0].test)


def test_an_address_on_this_machine_stays_here():
    data = replace(images(), card=Card(url="/home/nurse/scans"))
    assert "nurse" not in table_of(data).arff


DAMAGES = {
    "a field": lambda t: t.replace('"digest"', '"d"'),
    "a type": lambda t: t.replace('"n_samples": 40', '"n_samples": [1]'),
    "a kind": lambda t: t.replace('"kind": "classification"', '"kind": "xml"'),
    "a column": lambda t: t.replace("parts", "prats"),
    "a row": lambda t: t.replace("@DATA", "@DATA\nx,y,z"),
    "the JSON": lambda t: t.replace("metamed.task {", "metamed.task [{"),
    "a word": lambda t: t.replace(",t,'class 0'", ",tt,'class 0'", 1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_table_is_one_readable_error(damage):
    with pytest.raises(ReadError, match="a table of metamed that cannot be read"):
        read_table(damage(table_of(images()).arff))


def test_anybody_elses_table_is_not_taken_for_ours():
    assert read_table("@RELATION iris\n@ATTRIBUTE a REAL\n@DATA\n1\n") is None


@pytest.mark.parametrize(("k", "procedure"), [(4, 25), (10, 1)])
def test_cross_validation_is_published_where_its_folds_are_the_servers(k, procedure):
    data = replace(images(n=60, classes=3), groups=None)
    tests = next(crossvalidation(data.target.tolist(), 60, k))
    splits = []
    for t in tests:
        rest = np.setdiff1d(np.arange(60), t)
        splits.append(Split(tuple(rest[5:].tolist()), tuple(rest[:5].tolist()), tuple(t.tolist())))
    task = replace(make_task(data), procedure=f"{k}-fold", folds=tuple(splits))
    table = table_of(data, task)
    assert table.procedure == procedure and (table.rows >= 0).all()
    assert [sorted(test.tolist()) for _, _, _, test in folds(procedure, data.target, 60)] == table.test_rows
    assert read_table(table.arff)[1] == task
    other = replace(task, folds=(splits[1], splits[0], *splits[2:]))
    with pytest.raises(NotApplicable, match="folds are not those that an OpenML server makes"):
        table_of(data, other)


def test_what_openml_cannot_express_says_why():
    data = images(n=60)
    task = make_task(data)
    fold = task.folds[0]
    few = replace(task, folds=(Split(fold.train, fold.validation, fold.test[:6]),))
    with pytest.raises(NotApplicable, match="6 of 54 samples are tested on"):
        table_of(data, few)
    with pytest.raises(NotApplicable, match="no 3-fold"):
        table_of(data, replace(task, folds=(fold, fold, fold)))
    several = replace(data, target=np.zeros((60, 2), int))
    with pytest.raises(NotApplicable, match="one label a sample"):
        table_of(several, task)


def test_a_row_is_a_bag_where_there_are_bags(mil_data):
    table = table_of(mil_data)
    assert {int(r) for r in table.rows} - {-1} == set(range(20)) and "One row a bag" in table.description


@given(st.lists(st.sampled_from("tve-"), min_size=3, max_size=30), st.integers(1, 3), st.randoms())
@settings(max_examples=60, deadline=None)
def test_folds_survive_any_order_of_rows(letters, k, random):
    columns = [random.sample(letters, len(letters)) for _ in range(k)]
    splits = tuple(Split(*(tuple(i for i, c in enumerate(column) if c == letter) for letter in "tve"))
                   for column in columns)  # fmt: skip
    rows = np.array([*range(len(letters)), -1, -1])
    rows = rows[random.sample(range(len(rows)), len(rows))]
    assert folds_of(part_words(splits, rows), rows) == splits


def test_class_names_that_cannot_be_told_apart_become_numbers():
    data = replace(images(), card=Card(classes=("\u00e9", "\u00e8")))
    assert table_of(data).classes == ("0", "1")
    strange = replace(images(), card=Card(classes=("a, {b}", "it's \"c\" %")))
    table = table_of(strange)
    assert table.classes == ("a, {b}", "it's \"c\" %") and read_table(table.arff)[1] == table.task


def test_meta_features_come_back_exactly():
    values = {"a.mean": 0.1 + 0.2, "b": float("nan"), "c": 1e-300, "d": 3.0}
    table = MetaTable(DatasetFacts.of(images()), values)
    back = read_metatable(table.arff)
    assert {k: repr(v) for k, v in back.items()} == {k: repr(v) for k, v in values.items()}


# ---- flows and setups


def test_a_flow_has_all_parameters_of_the_signature():
    flow = make_flow(SETUPS[2], (1, 2, 3), "0.1.0+cpu")
    assert flow.name == "metamed.finetune(classification.resnet)"
    assert {"depth", "encoder_factor", "learning_rate", "sources"} <= set(flow.parameters)
    assert flow.version.startswith("metamed==0.1.0.cpu,sha=") and len(flow.version) <= 128
    assert make_flow(SETUPS[0], (1, 1), "0.1").name == "metamed.classification.small_cnn"
    assert make_flow(SETUPS[0], (1, 1), "0.1").key == make_flow(SETUPS[1], (1, 1), "0.1").key
    assert make_flow(SETUPS[0], (2, 1), "0.1").key != make_flow(SETUPS[1], (1, 1), "0.1").key
    with pytest.raises(NotApplicable, match="nobody here knows how to run it"):
        make_flow(Setup("unheard_of"), (1,), "0.1")


@pytest.mark.parametrize("setup", [*SETUPS, Setup("probe.linear", {}, None, ("a", "b")),
                                   Setup("resnet", {"learning_rate": 0.01, "augment": "none"}, "freeze", ("x",))])
def test_a_setup_comes_back_from_flow_and_settings(setup):
    assert setup_from(make_flow(setup, (1,), "0.1").name, settings_of(setup)) == setup


def test_every_method_that_ships_is_a_flow():
    from metamed.methods import described

    for name, method in described().items():
        setup = Setup("resnet", {}, name, ("x",)) if method.kind == "transfer" else Setup(name)
        flow = make_flow(setup, (1,), "0.1")
        assert setup_from(flow.name, {k: v[1] for k, v in flow.parameters.items()}).method == setup.method
        for parameter, (kind, default, domain) in flow.parameters.items():
            assert re.fullmatch(r"[\w.,():=-]+", parameter) and LATIN(domain) and len(domain) <= 1024
            assert len(default) <= SETTING and kind in ("int", "float", "bool", "str", "list")
        assert re.fullmatch(r"[A-Za-z0-9_.,():=-]{1,1024}", flow.name) and LATIN(flow.description)


@pytest.mark.parametrize("name", ["sklearn.tree.Tree(1)", "metamed.", "metamed.Setup", "metamed.a(b(c.d))", ""])
def test_a_name_that_is_no_flow_of_metamed_is_refused(name):
    with pytest.raises(ReadError, match="is no flow of metamed"):
        setup_from(name, {})


def test_opaque_setups_differ_by_name_version_and_settings_and_always_fit():
    base = opaque("sklearn.tree.Tree(1)", "sklearn==1.5", {"depth": "3"})
    assert base == opaque("sklearn.tree.Tree(1)", "sklearn==1.5", {"depth": "3"})
    others = [opaque("sklearn.tree.Tree(2)", "sklearn==1.5", {"depth": "3"}),
              opaque("sklearn.tree.Tree(1)", "sklearn==1.6", {"depth": "3"}),
              opaque("sklearn.tree.Tree(1)", "sklearn==1.5", {"depth": "4"}),
              opaque("sklearn.tree.Tree(1)", "sklearn==1.5", {"depth": "x" * 5000})]  # fmt: skip
    assert len({s.id for s in [base, *others]}) == 5
    for setup in [*others, opaque("weka \u00e9 " * 500, "", {"\u00e9": "1"}), opaque("", "", {})]:
        assert checked(setup) == setup


# ---- runs


def test_a_run_tells_its_measures_under_openmls_names_and_no_others():
    store, data = Store.memory(), images()
    run = add_run(store, data)
    text = run_document(run, SETUPS[0], server_measures(run, 2, {"area_under_roc_curve", "kappa"}), 7, 9)
    assert re.findall(r"<oml:name>(.*?)</oml:name>", text.partition("output_data")[2]) == ["area_under_roc_curve"]
    assert f"<oml:tag>metamed.k.{run.id}</oml:tag>" in text and LATIN(text) and "nurse" not in text
    string = re.search(r"<oml:setup_string>(.*?)</oml:setup_string>", text)[1]
    assert Setup(**json.loads(string) | {"sources": ()}) == SETUPS[0]


def test_scores_go_under_a_name_only_where_both_mean_the_same():
    store = Store.memory()
    names = {n: set(server_measures(add_run(store, images(f"of{n}", n=60, classes=n)), n)) for n in (2, 3)}
    assert names[2] - names[3] == {"area_under_roc_curve"}, "servers weigh classes by their size"
    assert "kappa" not in names[2], "ours has quadratic weights"


def test_anybodys_predictions_are_measured_as_ours():
    store, data = Store.memory(), images(n=60, classes=3)
    run = add_run(store, data)
    (parcel,) = make_plan(store).parcels
    text = parcel.files["predictions"][1].decode()
    found = read_predictions(text)
    evaluations = measured(found)
    for name in ("auc", "accuracy", "balanced_accuracy", "log_loss", "kappa", "calibration_error"):
        assert evaluations[name] == pytest.approx(run.evaluations[name], abs=0.02), "stored with three digits"
    assert right(found) == pytest.approx(run.evaluations["accuracy"])
    for damage in ("", text.replace("confidence.", "certainty."), text.replace("@DATA", "@DATA\n1,2")):
        with pytest.raises(ReadError, match="predictions without probabilities"):
            read_predictions(damage)


@given(st.integers(0, 10**6), st.integers(2, 4), st.sampled_from([0.3, 1.0, 6.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_what_rounding_may_change_is_known(seed, classes, sharpen):
    """Small folds of networks that are sure of nothing or of everything: two bytes a probability make ties."""
    rng = np.random.default_rng(seed)
    truth = np.arange(4 * classes) % classes
    p = rng.dirichlet(np.ones(classes), len(truth)) ** sharpen + 1e-12
    p = (p / p.sum(1, keepdims=True) if seed % 2 else np.full(p.shape, 1 / classes) + 1e-4 * p).astype(np.float32)
    stored = p.astype(np.float16).astype(float)
    for kept in (stored, stored / stored.sum(1, keepdims=True)):
        fold = Fold(truth, kept, kept.argmax(1))
        exact, by = evaluate("classification", truth, p), undecided([fold])
        for name, (slack,) in by.items():
            assert abs(exact[name] - measured([fold])[name][0]) <= slack + 1e-9, name
    decided = Fold(truth, np.eye(classes)[truth] * 0.6 + 0.1, truth)
    assert undecided([decided]) == {"auc": (0.0,), "accuracy": (0.0,), "balanced_accuracy": (0.0,)}


def test_the_record_of_a_run_comes_back_in_full_precision():
    run = add_run(Store.memory(), images())
    source = Source("x", "resnet18", "supervised", ("imagenet",), "imagenet", "ab" * 32, "CC0", "/home/nurse/x.pt")
    text = record_json(run, SETUPS[0], [source])
    assert "nurse" not in text
    back, setup, sources = read_record(text)
    assert back == replace(run, environment={"metamed": "0.1.0", "device": "cpu"}) and back.id == run.id
    assert setup == SETUPS[0] and sources == [replace(source, origin="path")]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": 1}', '{"run": {}, "setup": {}, "sources": []}'])
def test_a_record_that_is_none_is_refused(text):
    with pytest.raises(ReadError, match="not a run of metamed"):
        read_record(text)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_record_of_strangers_breaks_a_store(data):
    """Whatever stands in place of a value: it is refused as unreadable, or kept as a value of the right type."""
    said = json.loads(record_json(RUN, SETUPS[2], [Source("x", "r", "s", ("i",), "p", "ab", "CC0", "shipped")]))
    part = data.draw(st.sampled_from(["run", "setup"]))
    name = data.draw(st.sampled_from(sorted(said[part])))
    said[part][name] = data.draw(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                                              lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(), v,
                                                                                                  max_size=2)))
    try:
        run, setup, sources = read_record(json.dumps(said))
        Store.memory().add_all([setup, *sources, run])
    except MetamedError:
        return


# ---- what would be sent


def test_a_plan_says_what_stays_and_why():
    store, data = Store.memory(), images()
    kept = add_run(store, data)
    add_run(store, data, seed=1, error="CUDA out of memory")
    store.add(Run(kept.task, kept.setup, 2, (1, 1), {"auc": (0.5,)}, 1.0))
    store.add_all([Setup("unheard_of"), replace(kept, setup=Setup("unheard_of").id)])
    task = replace(make_task(data), digest="0" * 40)
    store.add_all([task, replace(kept, task=task.id)])
    plan = make_plan(store)
    assert [p.run.id for p in plan.parcels] == [kept.id]
    assert len(plan.offline) == 4 and all(len(runs) == 1 for runs in plan.offline.values())
    told = "\n".join(plan.describe())
    for words in ("failed run", "predictions are not in this store", "knows how to run it", "labels of its dataset"):
        assert words in told
    assert "no pixel values, paths, file names, patient ids or headers" in told and "nurse" not in told


def test_no_document_holds_what_is_not_meant_for_others(tmp_path):
    store, data = Store.memory(), images()
    add_run(store, data)
    store.add_metafeatures(data, {"entropy.mean": 3.0})
    plan = make_plan(store)
    assert plan.write(tmp_path) == len(list(plan.documents()))
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) == 9
    pixels = data.images.array[0].tobytes()
    assert not any(b"patient " in text.replace(b"equal patient ", b"") or b"nurse" in text or pixels in text
                   or b"sha256" in text.replace(b'"sources"', b"") for text in texts)  # fmt: skip


def test_with_images_their_hashes_and_paths_are_told():
    from metamed.exchange.images import identified

    store, data = Store.memory(), images()
    add_run(store, data)
    plan = make_plan(store, columns=identified(data))
    (table,) = plan.tables.values()
    assert "sha256" in table.arff and "scans[3]" in table.arff and "path, sha256 of every image" in plan.describe()[-1]
    assert read_table(table.arff)[1] == table.task


def test_paths_are_told_without_the_folder_in_which_they_lie(tmp_path):
    from PIL import Image

    from metamed.exchange.images import identified
    from metamed.readers import read

    rng = np.random.default_rng(0)
    for k in range(12):
        folder = tmp_path / "nurse" / "scans" / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{k}.png")
    data = read(tmp_path / "nurse" / "scans")
    columns = identified(data)[data.digest]
    assert sorted(columns["path"]) == sorted(f"{'ab'[k % 2]}/{k}.png" for k in range(12))
    assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in columns["sha256"]) and len(set(columns["sha256"])) == 12


def test_labels_are_kept_once_and_without_the_names_of_patients():
    store, data = Store.memory(), images()
    store.add(data)
    path = store.artifact(data.digest, FILE)
    labels = read_labels(path)
    assert (labels.target == data.target).all() and (labels.groups == np.arange(40) // 2).all()
    assert b"patient" not in path.read_bytes()
    before = path.stat().st_mtime_ns
    store.add(data)
    assert path.stat().st_mtime_ns == before


# ---- limits, enforced when a record is stored


@pytest.mark.parametrize("name", ["a b", "\u00e9tude+2", "x" * 300, "/etc/passwd", "  ", "a,b(c).d-e_f"])
def test_any_dataset_gets_a_name_that_servers_take(name):
    kept = checked(replace(DatasetFacts.of(images()), name=name)).name
    assert re.fullmatch(r"[A-Za-z0-9_.,()-]{1,128}", kept) and dataset_name(kept) == kept
    if re.fullmatch(r"[A-Za-z0-9_.,()-]{1,128}", name):
        assert kept == name


VALUES = st.text(max_size=400) | st.integers() | st.floats() | st.none()


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=8), st.text(min_size=1, max_size=30),
       st.lists(st.text(max_size=60), max_size=4))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_setup_that_is_stored_fits_into_its_documents(hyperparameters, method, sources):
    try:
        setup = checked(Setup(method, hyperparameters, None, tuple(sources)))
    except MetamedError:
        return
    assert len(setup_string(setup)) <= SETTING and LATIN(setup_string(setup))
    assert all(re.fullmatch(r"[A-Za-z0-9_.,():-]+", k) and len(k) <= NAME for k in setup.hyperparameters)
    assert len(f"metamed.classification.{setup.method}") <= FLOW_NAME


def test_names_that_are_too_long_together_are_refused():
    with pytest.raises(MetamedError, match="together take more than 1024"):
        checked(Setup("m" * 600, {}, "r" * 600))


# ---- servers and keys


@pytest.mark.parametrize("url", ["", "localhost", "ftp://x/api", "http://user:secret@host/api/v1", "openml.org"])
def test_an_address_that_is_none_is_refused_without_repeating_it(url):
    with pytest.raises(PublishError, match="a server is named openml, test or local") as error:
        Server(url or "x")
    assert "secret" not in str(error.value)


def test_a_key_is_sent_only_to_the_server_that_it_belongs_to(monkeypatch):
    import openml

    monkeypatch.setattr(openml.config, "server", "https://hospital.example/api/v1/xml")
    monkeypatch.setattr(openml.config, "apikey", "s3cret")
    assert find_server(None)._key == find_server("https://hospital.example/api/v1")._key == "s3cret"
    assert find_server("openml")._key == "" and find_server("https://other.example/api/v1")._key == ""
    assert find_server("local")._key == "normaluser" and find_server("local").base == "http://localhost:8000"
    assert find_server("test").base == "https://test.openml.org" and find_server("test")._key not in ("", "s3cret")
    assert openml.config.server.startswith("https://hospital"), "looking at the test server changes no settings"
    assert "s3cret" not in repr(find_server(None))
