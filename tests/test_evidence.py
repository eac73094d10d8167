"""The evidence that ships, its text tables, and how tables of papers become evidence."""

import csv
import math
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from metamed.dataset import ArrayImages, Dataset, Split
from metamed.errors import ReadError
from metamed.records import Published, Run, Setup, Source, Task
from metamed.store import Store, evidence
from metamed.store.published import translate

DATA = Path(__file__).parents[1] / "metamed" / "data"
TABLES = ("dataset", "source", "setup", "task", "run", "published")


def small_store() -> Store:
    images = np.random.default_rng(0).integers(0, 255, (12, 1, 16, 16)).astype(np.uint8)
    data, store = Dataset("tiny, with comma", ArrayImages(images), np.arange(12) % 2), Store.memory()
    folds = (Split((0, 1, 2, 3), (4, 5), (6, 7, 8)), Split((8, 2, 4), (), (0, 1)))
    task = Task(data.name, data.digest, "classification", "target", 7, "4-fold", "auc", folds)
    setups = [
        Setup("resnet", {"depth": 18, "lr": 1e-3, "augment": True}, "finetune", ("imagenet.x",)),
        Setup("m", {"c": None}),
    ]
    runs = [
        Run(
            task.id,
            setups[0].id,
            seed,
            (1, 2),
            {"auc": (0.123456789, 0.5), "accuracy": (0.25, 1.0)},
            12.3456,
            {"torch": "2.11", "device": "cuda"},
            ("a" * 64,),
        )
        for seed in range(3)
    ]
    failed = Run(task.id, setups[1].id, 0, (1,), {}, 0.1, error='out of memory, "sadly"')
    figures = [
        Published("paper", protocol, "far", "target", s.id, "auc", 0.9 + k / 100, sd, 3, "arXiv:1", place)
        for k, (protocol, s, sd, place) in enumerate(
            [("a", setups[0], None, "t1"), ("a", setups[1], 0.1, "t1"), ("b", setups[0], None, "t2")]
        )
    ]
    far = evidence.DatasetFacts(
        evidence.pseudo_digest("far"), "far", "classification", n_samples=5, facts={"n_train": 4}
    )
    store.add_all(
        [
            data,
            far,
            task,
            *setups,
            *runs,
            failed,
            *figures,
            Source("imagenet.x", "resnet18", "supervised", ("imagenet",), "imagenet", "b" * 64, "MIT", "path"),
        ]
    )
    store.add_metafeatures(data, {"entropy.mean": 0.1 + 0.2, "bag.mean": math.nan})
    return store


def ids(store: Store) -> dict[str, set[str]]:
    return {table: {r.id for r in store.records(table)} for table in TABLES}


def test_written_and_read_again_it_has_equal_ids(tmp_path):
    store, back = small_store(), Store.memory()
    store.export(tmp_path, "suite")
    evidence.read(back, tmp_path)
    assert ids(back) == ids(store)
    for table in ("dataset", "source", "setup", "task", "published"):
        assert {r.id: r for r in back.records(table)} == {r.id: r for r in store.records(table)}
    ((digest, values),) = back.measured().items()
    assert digest == store.records("task")[0].digest and values["entropy.mean"] == 0.1 + 0.2
    assert set(values) == {"entropy.mean", "bag.mean"} and math.isnan(values["bag.mean"])
    assert back.thumbnails() == store.thumbnails()
    first = back.runs()[0]
    assert first.evaluations == {"auc": (0.123457, 0.5), "accuracy": (0.25, 1.0)} and first.seconds == 12.3
    assert first.environment == {"torch": "2.11", "device": "cuda"}
    assert [r.error for r in back.runs() if r.error] == ['out of memory, "sadly"']


def test_writing_twice_changes_no_byte_and_suites_keep_apart(tmp_path):
    store = small_store()
    store.export(tmp_path, "one")
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.csv"))}
    store.export(tmp_path, "one")
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.csv"))} == before
    task, setup = store.records("task")[0], store.records("setup")[0]
    new = Run(task.id, setup.id, 99, (1, 2), {"auc": (0.5, 0.5)}, 1.0)
    store.add(new)
    store.export(tmp_path, "two")
    assert (tmp_path / "runs" / "one.csv").read_bytes() == before[tmp_path / "runs" / "one.csv"]
    assert len((tmp_path / "runs" / "two.csv").read_text().splitlines()) == 2
    back = Store.memory()
    evidence.read(back, tmp_path)
    assert ids(back) == ids(store)


def test_a_store_without_figures_leaves_those_of_the_folder_alone(tmp_path):
    small_store().export(tmp_path, "one")
    before = (tmp_path / "published" / "paper.csv").read_bytes()
    Store.memory().export(tmp_path, "two")
    assert (tmp_path / "published" / "paper.csv").read_bytes() == before
    assert not (tmp_path / "runs" / "two.csv").exists()


def test_an_unreadable_table_is_named(tmp_path):
    small_store().export(tmp_path, "one")
    setups = tmp_path / "setups.csv"
    setups.write_text(setups.read_text().replace("recipe", "receipt"))
    with pytest.raises(ReadError, match="setups.csv: unreadable row .*recipe"):
        evidence.read(Store.memory(), tmp_path)


# what ships


def test_shipped_ids_are_the_hashes_of_their_content():
    store = Store.embedded()
    for table in TABLES:
        keys = {r.id for r in store.records(table)}
        stored = {row[0] for row in store._db.all(f"SELECT {evidence.COLUMNS[table][0]} FROM {table}")}
        assert keys == stored, table
    assert len(store.records("published")) == 9531


def test_shipped_evidence_is_whole():
    store = Store.embedded()
    setups = {s.id for s in store.records("setup")}
    names = {f.name for f in store.records("dataset")}
    tasks = {t.id for t in store.records("task")}
    for figure in store.records("published"):
        assert figure.setup in setups and figure.dataset in names
        assert 0 <= figure.value <= 1 and figure.repeats >= 1 and figure.paper
    for run in store.runs():
        assert run.task in tasks and run.setup in setups
    studies = {r["study"]: r for r in csv.DictReader((DATA / "studies.csv").open(encoding="utf-8"))}
    assert set(studies) == {f.study for f in store.records("published")}
    assert all(r["licence"] in ("MIT", "Apache-2.0") and r["repository"] for r in studies.values())


def test_it_stays_small_enough_to_ship():
    """The wheel stays under 5 MB; a wheel is compressed."""
    size = sum(len(zlib.compress(p.read_bytes())) for p in DATA.rglob("*") if p.is_file())
    assert size < 3_000_000


def test_one_network_is_one_network_in_every_study():
    frame = Store.embedded().examples("classification", "auc")
    resnet = Setup("resnet", {"depth": 18, "image_size": 224}, "finetune", ("imagenet.torchvision.resnet18",))
    studies = frame[frame["setup"] == resnet.id]["study"].unique()
    assert set(studies) == {"medmnistplus_doerrich2024", "juodelyte2024_transfer_auc"}
    assert set(frame[frame["dataset"] == evidence.pseudo_digest("bloodmnist")]["study"]) == set(studies)
    assert {"lits", "kermany_cxr", "isic", "busi"} <= set(frame["family"])
    chest = frame[frame["sources"] == ("chestmnist",)]
    assert len(chest) == 11 and not chest["runnable"].any()
    dice = Store.embedded().examples("segmentation", "dice")
    assert set(dice["study"]) == {"metamed", "medsegbench2024", "msd2018_leaderboard", "nnunet_revisited2024"}
    nnunet = dice[(dice["method"] == "nnunet")]
    assert set(nnunet["study"]) == {"msd2018_leaderboard", "nnunet_revisited2024"}


def test_shipped_sources_can_be_told_apart(shared):
    from metamed.training import sha256

    store = Store.embedded()
    coral = store.source("imagenet.coral.mobilenet_v2")
    assert coral.sha256 == sha256(shared / "weights" / "mobilenet_v2_imagenet1k.safetensors")
    assert coral.preprocessing == "half_same" and coral.origin == "shipped" and "non-commercial" in coral.licence
    others = [s for s in store.records("source") if not s.origin.startswith(("train:", "random:"))]
    assert {s.name.split(".")[0] for s in others} == {"imagenet", "inatbird", "inatinsect"}
    runs = {r.id for r in store.records("run")}
    assert all(s.origin.removeprefix("train:") in runs for s in store.records("source") if "train:" in s.origin)


def test_torchvision_sources_are_those_that_it_loads():
    torchvision = pytest.importorskip("torchvision")
    for source in Store.embedded().records("source"):
        if source.origin == "torchvision":
            weights = torchvision.models.get_model_weights(source.network).DEFAULT
            assert f"-{source.sha256}.pth" in weights.url


def test_the_published_tables_are_made_from_the_facts(shared, tmp_path, monkeypatch):
    from benchmarks import import_facts

    shutil.copytree(DATA, tmp_path / "data")
    monkeypatch.setattr(import_facts, "SHARED", shared)
    monkeypatch.setattr(import_facts, "DATA", tmp_path / "data")
    import_facts.main()
    for path in sorted((DATA / "published").glob("*.csv")):
        assert (tmp_path / "data" / "published" / path.name).read_bytes() == path.read_bytes()
    one = next(csv.DictReader((shared / "facts" / "medmnistplus_doerrich2024.csv").open()))
    setup = Setup("vgg16", {"image_size": 28}, "finetune", ("imagenet.torchvision.vgg16",))
    (figure,) = [
        f
        for f in Store.embedded().records("published")
        if (f.setup, f.dataset, f.measure) == (setup.id, "bloodmnist", "accuracy")
    ]
    assert (figure.value, figure.sd, figure.repeats) == (float(one["value"]), float(one["value_std"]), 3)


# words and tables of others


def test_words_become_setups():
    assert translate("", "ResNet-50", "ImageNet", "") == (
        Setup("resnet", {"depth": 50}, "finetune", ("imagenet.torchvision.resnet50",)),
        "as published",
    )
    assert translate("", "mobilenet_v2", "none (from scratch)", "5-fold")[0] == Setup("mobilenet")
    probe, protocol = translate("", "resnet18", "imagenet", "64x64; linear-probing; official split")
    assert probe == Setup(
        "probe.linear", {"network": "resnet18", "image_size": 64}, None, ("imagenet.torchvision.resnet18",)
    )
    assert protocol == "official split"
    assert translate("", "vit_b", "imagenet", "fine-tune 30 epochs, batch 64, lr 0.01") == (
        Setup("vit_b", {}, "finetune", ("imagenet.vit_b",)),
        "fine-tune 30 epochs, batch 64, lr 0.01",
    )
    assert translate("", "LS Wang's Net", "ChestX-ray14", "")[0] == Setup(
        "ls_wang_s_net", {}, "finetune", ("chestx-ray14",)
    )


def table(path: Path, rows: list[tuple], columns=("dataset", "method", "metric", "value")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_a_table_of_ones_own_becomes_evidence(tmp_path):
    store = Store.memory()
    path = table(
        tmp_path / "My results.csv", [("retina x", "resnet18", "AUC", "0.91"), ("retina x", "vit", "AUC", "0.93")]
    )
    new = store.import_table(path)
    assert int(new) == 2 == len(store) and new.notes == ()
    assert store.import_table(path) == 0
    frame = store.examples("classification", "auc")
    assert list(frame["name"]) == ["retina_x"] * 2 and set(frame["study"]) == {"my_results"}


def test_a_stored_figure_stays_and_that_is_said(tmp_path):
    store = Store.memory()
    store.import_table(table(tmp_path / "t.csv", [("a", "x", "auc", "0.9"), ("a", "y", "auc", "0.7")]))
    again = store.import_table(table(tmp_path / "t.csv", [("a", "x", "auc", "0.8"), ("a", "y", "auc", "0.7")]))
    assert int(again) == 0 and again.notes == ("1 figures were stored before with another value, which stays",)
    assert sorted(f.value for f in store.records("published")) == [0.7, 0.9]


def test_percents_become_fractions_and_it_is_said(tmp_path):
    store = Store.memory()
    columns = ("dataset", "method", "metric", "value", "value_std")
    new = store.import_table(
        table(
            tmp_path / "t.csv",
            [
                ("a", "x", "accuracy", "91.5", "0.4"),
                ("a", "y", "accuracy", "88%", ""),
                ("b", "x", "accuracy", "0.5", "0.01"),
                ("c", "x", "accuracy", "0.9%", ""),
                ("a", "x", "hd95", "12.5", ""),
            ],
            columns,
        )
    )
    values = {(f.dataset, f.measure, f.value, f.sd) for f in store.records("published")}
    assert values == {
        ("a", "accuracy", 0.915, 0.004),
        ("a", "accuracy", 0.88, None),
        ("b", "accuracy", 0.5, 0.01),
        ("c", "accuracy", 0.009, None),
        ("a", "hd95", 12.5, None),
    }
    assert new.notes == ("3 of 5 values are percents: divided by 100",)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [("a", "x", "1")],
            ("dataset", "method", "value"),
            "no column metric .found: dataset, method, value.. Rename it",
        ),
        (
            [("a", "x", "auc", "n/a")],
            None,
            "no row with a dataset, a method and a number among 1, e.g. line 2: value 'n/a'",
        ),
        ([], None, "no row .* among 0"),
        (
            [("a", "x", "auc", "91"), ("a", "y", "auc", "0.9")],
            None,
            "auc of a runs from 0.9 to 91: percents and fractions mixed",
        ),
        ([("a", "x", "auc", "912")], None, "auc of a runs from 912 to 912"),
    ],
)
def test_a_useless_table_is_refused_in_one_line(tmp_path, rows, columns, message):
    path = table(tmp_path / "bad.csv", rows, columns or ("dataset", "method", "metric", "value"))
    store = Store.memory()
    with pytest.raises(ReadError, match=message) as error:
        store.import_table(path)
    assert "bad.csv" in str(error.value) and "\n" not in str(error.value) and len(store) == 0


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00binary\x00\xff")
    with pytest.raises(ReadError, match="x.csv"):
        Store.memory().import_table(tmp_path / "x.csv")
    with pytest.raises(ReadError, match="No such file"):
        Store.memory().import_table(tmp_path / "absent.csv")


def test_what_is_odd_is_handled_and_said(tmp_path):
    store = Store.memory()
    new = store.import_table(
        table(
            tmp_path / "odd.csv",
            [
                ("a", "x", "auc", "0.9"),
                ("a", "x", "auc", "0.8"),
                ("a", "y", "auc", ""),
                ("a", "z", "auc", "inf"),
                ("a", "x", "dice", "0.5"),
                ("b", "x", "dice", "0.5"),
            ],
        )
    )
    assert int(new) == 3
    text = " ".join(new.notes)
    assert "2 rows without a number" in text and "line 4" in text
    assert "1 figures have several rows with different values" in text and "dice: every value is 0.5" in text
    (figure,) = [f for f in store.records("published") if f.measure == "auc"]
    assert figure.value == pytest.approx(0.85) and figure.repeats == 2


def test_one_name_for_two_kinds_of_task_is_two_datasets(tmp_path):
    store = Store.memory()
    columns = ("dataset", "task", "method", "metric", "value")
    store.import_table(
        table(
            tmp_path / "t.csv",
            [("busi", "classification", "x", "auc", "0.9"), ("busi", "segmentation", "unet", "dice", "0.7")],
            columns,
        )
    )
    assert {(f.name, f.kind) for f in store.records("dataset")} == {
        ("busi", "classification"),
        ("busi.segmentation", "segmentation"),
    }
    assert len(store.examples("segmentation", "dice")) == 1


@pytest.mark.parametrize(
    "name", ["pathbench2025_pfm", "transfergraph2024_records", "parc2021_oracles", "milpy_classic_mil"]
)
def test_tables_that_do_not_ship_can_be_imported(shared, name):
    store = Store.memory()
    rows = sum(1 for _ in csv.DictReader((shared / "facts" / f"{name}.csv").open(encoding="utf-8")))
    new = store.import_table(shared / "facts" / f"{name}.csv")
    assert 0.9 * rows < int(new) <= rows


def test_the_import_says_what_it_did_as_a_module():
    result = subprocess.run(
        [sys.executable, "-c", "import benchmarks.import_facts as f; print(len(f.STUDIES))"],
        capture_output=True,
        text=True,
        cwd=DATA.parents[1],
        check=True,
    )
    assert result.stdout.strip() == "6"
