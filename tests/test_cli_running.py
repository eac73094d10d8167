"""The commands that train, and those that use what was trained."""

import csv
import json
from pathlib import Path

import pytest
from conftest import blobs
from test_cli import _own_store, error_of, retina, write  # noqa: F401 (fixtures)

from metamed.cli import call
from metamed.cli.given import suite
from metamed.cli.options import Common
from metamed.cli.running import beside
from metamed.records import Candidate, Run, Setup

QUICK = ["--method", "small_cnn", "--set", "epochs=1", "--set", "width=16", "--device", "cpu"]


def out_of(capsys, *arguments) -> str:
    code = call(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.fixture
def kept(retina, capsys) -> str:  # noqa: F811
    """The id of a run on retina whose weights were kept."""
    return out_of(capsys, "run", "--dataset", retina, *QUICK, "--keep", "--robust").split()[1]


def test_a_kept_run_is_repeated_predicts_and_leaves(kept, retina, capsys, tmp_path, monkeypatch):  # noqa: F811
    said = out_of(capsys, "run", "--from", kept, "--dataset", retina)
    assert f"equal to the stored run {kept} in all 13 scores" in said
    assert "give it with --dataset FILE" in error_of(capsys, "run", "--from", kept)[1]
    monkeypatch.setenv("METAMED_DATA", str(retina.parent))
    assert f"equal to the stored run {kept}" in out_of(capsys, "run", "--from", kept[:8])

    table = list(csv.DictReader(out_of(capsys, "predict", "--run", kept, "--dataset", retina).splitlines()))
    assert len(table) == 80 and set(table[0]) == {"sample", "0", "1", "predicted"}
    assert out_of(capsys, "predict", "--run", kept, "--dataset", retina, "--to", tmp_path / "p.csv") == ""
    assert list(csv.DictReader((tmp_path / "p.csv").open())) == table
    images = blobs(20, channels=1).images.array[:, 0]
    grey = write(tmp_path / "grey.h5", images=images)
    code, line = error_of(capsys, "predict", "--run", kept, "--dataset", grey)
    assert code == 4 and "takes images of 3 channels, not 1" in line

    assert out_of(capsys, "export", "--run", kept, "--to", tmp_path / "model.safetensors") == ""
    assert (tmp_path / "model.safetensors").stat().st_size > 10_000
    assert "model.pkl" in error_of(capsys, "export", "--run", kept, "--to", tmp_path / "model.pkl")[1]


def test_a_run_without_weights_says_how_to_make_them(retina, capsys):  # noqa: F811
    id = out_of(capsys, "run", "--dataset", retina, *QUICK).split()[1]
    line = error_of(capsys, "predict", "--run", id, "--dataset", retina)[1]
    assert f"metamed run --from {id} --dataset retina --keep" in line


def test_what_to_run_is_said_once(retina, capsys):  # noqa: F811
    for more in ([], ["--rank", "1", "--method", "small_cnn"], ["--rank", "1", "--from", "12345678"]):
        assert "say what to run" in error_of(capsys, "run", "--dataset", retina, *more)[1]
    assert "--dataset FILE is missing" in error_of(capsys, "run", "--rank", "1")[1]
    assert "no record" in error_of(capsys, "run", "--from", "00000000")[1]


def test_the_result_is_compared_with_the_prediction():
    def run(score):
        return Run("t", "s", 0, (1,), {"auc": (score,)}, 1.0)

    candidate = Candidate(Setup("small_cnn"), 0.8, 0.7, 0.9)
    said = beside(run(0.75), candidate, "auc", "a holdout")
    assert said == "predicted auc 0.800 (0.700 to 0.900; a holdout): the run reached 0.750, -0.050, inside the interval"
    assert beside(run(0.95), candidate, "auc", "").endswith("+0.150, outside the interval")
    assert "no auc" in beside(run(0.5), Candidate(Setup("x"), float("nan"), 0, 0), "auc", "")


def test_tuning_says_what_it_found_and_goes_on(retina, capsys, monkeypatch):  # noqa: F811
    from metamed import tuning

    setup = Setup("small_cnn", {"epochs": 1, "width": 16, "image_size": 28})
    monkeypatch.setattr(tuning, "_recommended", lambda *_: [setup])
    said = out_of(capsys, "tune", "--dataset", retina, "--trials", "2", "--device", "cpu")
    assert said.startswith("2 trials (2 complete) in ") and "best by validation auc" in said and "\nauc " in said
    assert out_of(capsys, "tune", "--dataset", retina, "--trials", "2") == said


# ---- suites from files


PYTHON = """
from metamed import Setup, Suite
SETUPS = tuple(Setup("small_cnn", {"epochs": 1, "width": 16, "depth": depth}) for depth in (2, 3))
SUITES = {"one": Suite("one", ("retina",), SETUPS), "two": Suite("two", ("retina",), SETUPS[:1], seeds=(0, 1))}
FAMILIES = {"retina": "eyes"}
"""
JSON = {"mine": {"datasets": ["retina"], "seeds": [0], "sizes": [40],
                 "setups": [{"method": "small_cnn", "hyperparameters": {"epochs": 1, "width": 16}},
                            {"method": "mobilenet", "recipe": "finetune",
                             "sources": ["imagenet.coral.mobilenet_v2"]}]}}  # fmt: skip


def test_suites_in_python_and_json_mean_the_same(tmp_path, retina):  # noqa: F811
    (tmp_path / "mine.py").write_text(PYTHON)
    (tmp_path / "mine.json").write_text(json.dumps(JSON))
    chosen, find, _ = suite(f"{tmp_path / 'mine.py'}:two", retina.parent, Common())
    assert chosen.seeds == (0, 1) and find("retina").family == "eyes"
    chosen, find, store = suite(str(tmp_path / "mine.json"), retina.parent, Common())
    assert chosen.name == "mine" and chosen.sizes == (40,) and chosen.setups[1].recipe == "finetune"
    assert store.source("imagenet.coral.mobilenet_v2").network == "mobilenet_v2"


def test_a_suite_of_a_file_is_run(tmp_path, retina, capsys):  # noqa: F811
    (tmp_path / "mine.py").write_text(PYTHON)
    where = ["--data", retina.parent, "--device", "cpu"]
    done = out_of(capsys, "bench", "run", f"{tmp_path / 'mine.py'}:one", *where)
    assert done == "one: 2 new runs, 0 of them failed\n"
    said = out_of(capsys, "bench", "status", f"{tmp_path / 'mine.py'}:two", *where[:2])
    assert said == "two: 1 of 2 runs stored, 1 missing\n"


def test_suites_that_cannot_be_read_say_why(tmp_path, retina, capsys):  # noqa: F811
    def error(text: str, name: str = "x.json") -> str:
        Path(tmp_path / name.partition(":")[0]).write_text(text)
        return error_of(capsys, "bench", "run", tmp_path / name, "--data", retina.parent)[1]

    assert "docs/running.md" in error("[1, 2]") and "docs/running.md" in error("{}}")
    assert "unexpected keyword argument 'dataset'" in error('{"a": {"dataset": [], "setups": []}}')
    assert "did you mean one" in error(PYTHON, "x.py:onne")
    assert "no SUITES" in error("x = 1", "y.py")
    assert "no such file" in error_of(capsys, "bench", "run", "absent.py", "--data", tmp_path)[1]
    wrong = error_of(capsys, "bench", "run", f"{tmp_path}/x.py:one", "--data", retina.parent, "--executor", "moon")[1]
    assert "dask:ADDRESS" in wrong
