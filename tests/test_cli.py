"""The command line: exit codes, one-line errors, pure JSON, and no heavy import where none is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import blobs

from metamed.cli import call
from metamed.cli.inventory import LISTS

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "sklearn", "pandas", "xgboost", "scipy", "openml", "matplotlib", "optuna", "skimage"}


def write(path: Path, **arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


@pytest.fixture(scope="module")
def retina(tmp_path_factory) -> Path:
    data = blobs(80)
    images = data.images.array.transpose(0, 2, 3, 1)
    path = tmp_path_factory.mktemp("data") / "retina.h5"
    return write(path, images=images, labels=data.target, patient_id=data.groups)


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "own.db"))
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("METAMED_DEBUG", raising=False)


def error_of(capsys, *arguments) -> tuple[int, str]:
    """Exit code and stderr of a command that fails; nothing may be on stdout."""
    code = call(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, (out, err)
    return code, err


# ---- what goes wrong


@pytest.mark.parametrize("arguments", [
    ["recommend"], ["recommend", "--datset", "x.h5"], ["recommend", "--dataset", "x.h5", "--top", "0"], ["recomend"],
    ["list"], ["list", "method"], ["store", "merge"], ["features", "--dataset"],
])  # fmt: skip
def test_wrong_usage_is_2(capsys, arguments):
    assert error_of(capsys, *arguments)[0] == 2


def test_near_names_are_offered(capsys):
    assert "--dataset" in error_of(capsys, "recommend", "--datset", "x.h5")[1]
    assert "did you mean methods" in error_of(capsys, "list", "method")[1]


def test_data_that_cannot_be_read_is_3_and_named(capsys, tmp_path, retina):
    text, cut, empty = tmp_path / "text.h5", tmp_path / "cut.h5", tmp_path / "empty"
    text.write_text("not HDF5")
    cut.write_bytes(retina.read_bytes()[: retina.stat().st_size // 2])
    empty.mkdir()
    lost = write(tmp_path / "lost.h5", pictures=np.zeros((20, 8, 8), np.uint8))
    for path in (text, cut, empty, lost, tmp_path / "absent.h5", tmp_path / "x.unknown"):
        code, line = error_of(capsys, "recommend", "--dataset", path)
        assert code == 3 and path.name in line


def test_one_class_or_too_few_samples_is_4(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    one = write(tmp_path / "one.h5", images=images, labels=np.zeros(20, int))
    few = write(tmp_path / "few.h5", images=images[:6], labels=np.arange(6) % 2)
    assert error_of(capsys, "recommend", "--dataset", one)[0] == 4
    code, line = error_of(capsys, "recommend", "--dataset", few)
    assert code == 4 and "at least 10" in line


def test_wrong_wishes_say_what_is_expected(capsys, retina):
    for option, value, words in (("--budget", "soon", "30m or 2h"), ("--device", "tpu", "cpu or cuda"),
                                 ("--licence", "free", "commercial")):  # fmt: skip
        code, line = error_of(capsys, "recommend", "--dataset", retina, option, value)
        assert code == 2 and words in line


def test_a_store_that_is_not_there_is_not_made_by_asking(capsys, retina, tmp_path):
    code, line = error_of(capsys, "recommend", "--dataset", retina, "--store", tmp_path / "no.db")
    assert code == 2 and "no.db" in line and not (tmp_path / "no.db").exists()


def test_run_needs_a_rank_or_a_method(capsys, retina):
    assert "--rank N" in error_of(capsys, "run", "--dataset", retina)[1]
    assert "name=value" in error_of(capsys, "run", "--dataset", retina, "--method", "small_cnn", "--set", "width")[1]


def test_a_folder_that_cannot_be_made_is_2(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, line = error_of(capsys, "store", "export", tmp_path / "file" / "below")
    assert code == 2 and "file" in line and "bug" not in line


def test_a_bug_is_1_in_one_line_and_a_traceback_only_when_asked(capsys, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oh no")

    monkeypatch.setattr("metamed.cli.inventory.rows", broken)
    code, line = error_of(capsys, "list", "methods")
    assert code == 1 and "ZeroDivisionError: oh no" in line and "METAMED_DEBUG=1" in line
    monkeypatch.setenv("METAMED_DEBUG", "1")
    assert call(["list", "methods"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("metamed.cli.inventory.rows", interrupted)
    assert call(["list", "methods"]) == 130


# ---- what comes out


def test_json_is_all_of_stdout(capsys, retina):
    for arguments in (["features", "--dataset", str(retina)], *(["list", what] for what in LISTS), ["doctor"]):
        assert call([*arguments, "--json"]) == 0
        json.loads(capsys.readouterr().out, parse_constant=lambda c: pytest.fail(f"{c} in JSON"))


def test_features_as_csv_are_the_same_numbers(capsys, retina):
    assert call(["features", "--dataset", str(retina), "--group", "general", "--csv"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert call(["features", "--dataset", str(retina), "--group", "general", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert head == "name,value" and [row.split(",")[0] for row in rows] == list(values)
    for row in rows:
        name, value = row.split(",")
        assert values[name] == pytest.approx(float(value), nan_ok=True) if values[name] is not None else value == "nan"


def test_inspect_shows_what_was_assumed(capsys, retina):
    assert call(["inspect", "--dataset", str(retina)]) == 0
    out = capsys.readouterr().out
    assert "80 images 16x16x3 uint8" in out and "groups from patient_id" in out


def test_a_run_is_kept_and_can_become_a_source(capsys, retina):
    assert call(["run", "--dataset", str(retina), "--method", "small_cnn", "--set", "epochs=1", "--set", "width=16",
                 "--as-source", "mine", "--device", "cpu"]) == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert out.startswith("run ") and "\nauc " in out and "kept as source mine" in err
    assert call(["list", "runs", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert [r["setup"] for r in runs if r["dataset"] == "retina"] == ["small_cnn(epochs=1, width=16) · from scratch"]
    assert call(["list", "sources"]) == 0
    assert "mine " in capsys.readouterr().out


def test_a_setting_outside_of_its_domain_is_2(capsys, retina):
    code, line = error_of(capsys, "run", "--dataset", retina, "--method", "small_cnn", "--set", "width=17")
    assert code == 2 and "width=17" in line
    assert "did you mean small_cnn" in error_of(capsys, "run", "--dataset", retina, "--method", "smal_cnn")[1]


def test_offline_forbids_a_download(capsys, retina):
    code, line = error_of(capsys, "run", "--dataset", retina, "--rank", "1", "--download", "--offline")
    assert code == 5 and "--offline" in line


def test_no_path_and_no_patient_leaves_in_a_report(capsys, tmp_path, monkeypatch):
    data = blobs(80)
    patients = np.array([f"Mustermann-{p}" for p in data.groups], dtype="S20")
    path = tmp_path / "secret-folder" / "retina.h5"
    path.parent.mkdir()
    write(path, images=data.images.array.transpose(0, 2, 3, 1), labels=data.target, patient_id=patients)
    report = tmp_path / "report.html"
    assert call(["recommend", "--dataset", str(path), "--json", "--report", str(report)]) == 0
    out = capsys.readouterr().out
    json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} in JSON"))
    for text in (out, report.read_text(encoding="utf-8")):
        assert "Mustermann" not in text and "secret-folder" not in text and "retina" in text


def test_results_go_into_the_store_and_between_stores(capsys, tmp_path):
    table = tmp_path / "results.csv"
    table.write_text("dataset,method,metric,value\na,x,auc,0.9\na,y,auc,0.8\nb,x,auc,0.7\nb,y,auc,0.75\n")
    assert call(["store", "import", str(table), "--store", str(tmp_path / "one.db")]) == 0
    assert "4 new figures" in capsys.readouterr().out
    assert call(["store", "import", str(table), "--store", str(tmp_path / "one.db")]) == 0
    assert "0 new figures" in capsys.readouterr().out
    assert call(["store", "merge", str(tmp_path / "one.db")]) == 0
    assert "4 new runs and figures" in capsys.readouterr().out
    assert call(["store", "export", str(tmp_path / "text")]) == 0
    assert list((tmp_path / "text").rglob("*.csv"))


def test_an_exam_of_a_table_prints_every_baseline(capsys, tmp_path):
    table, rng = tmp_path / "results.csv", np.random.default_rng(0)
    rows = [f"d{d},m{m},auc,{0.6 + 0.05 * m + 0.02 * rng.normal():.4f}" for d in range(6) for m in range(4)]
    table.write_text("\n".join(["dataset,method,metric,value", *rows]))
    assert call(["exam", "--table", str(table)]) == 0
    out = capsys.readouterr().out
    assert all(f"| {name} |" in out for name in ("metamed", "prior_list", "random", "oracle"))
    assert call(["exam", "--table", str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exams"][0]["datasets"] == 6


def test_an_exam_of_the_evidence_that_ships(capsys):
    assert call(["exam", "--kind", "mil"]) in (0, 4)
    assert call(["exam", "--kind", "miles"]) == 2
    assert "did you mean mil" in capsys.readouterr().err


def test_doctor_never_prints_a_key(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call(["doctor"]) == 0
    assert "not set" in capsys.readouterr().out
    (tmp_path / "openml").mkdir()
    (tmp_path / "openml" / "config").write_text("apikey = abcdef0123456789\nserver = x\n")
    assert call(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["OpenML key"] == "set" and "abcdef" not in out


# ---- as a program


def program(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "metamed", *arguments], capture_output=True, text=True, cwd=ROOT,
                          env=os.environ | {"NO_COLOR": "1"} | environment)  # fmt: skip


def test_version_and_help():
    import metamed

    assert program("--version").stdout == f"metamed {metamed.__version__}\n"
    done = program("--help")
    assert done.returncode == 0 and "recommend" in done.stdout and "\x1b[" not in done.stdout
    assert program().returncode == 2


@pytest.mark.parametrize("line", [
    "['--help']", "['recommend', '--help']", "['list', 'measures']", "['list', 'methods']", "['list', 'sources']",
])  # fmt: skip
def test_help_and_lists_import_nothing_heavy(line):
    code = f"import sys; from metamed.cli import call; call({line}); sys.exit(str({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "set()\n"


def test_completion_imports_nothing_heavy():
    """Completing a method, as the shell asks for it, where every heavy module refuses to be imported."""
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {sorted(HEAVY)}: raise RuntimeError('heavy: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from metamed.cli import main\n"
        "main()\n"
    )
    asked = {"_METAMED_COMPLETE": "complete_bash", "COMP_WORDS": "metamed run --method sma", "COMP_CWORD": "3"}
    environment = os.environ | asked
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert "small_cnn" in done.stdout and done.stderr == ""


def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m metamed list metafeatures | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.stdout


@pytest.fixture
def _working_folder(tmp_path, monkeypatch):
    """A working folder with a suite of its own; whatever `benchmarks` is known already comes back afterwards."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    (tmp_path / "benchmarks" / "suites.py").write_text(
        "from metamed.experiments import Suite\nfrom metamed.records import Setup\n"
        "SETUPS = tuple(Setup('small_cnn', {'epochs': 1, 'width': 16, 'depth': d}) for d in (2, 4))\n"
        "SUITES = {'tiny': Suite('tiny', ('retina',), SETUPS)}\nFAMILIES = {'retina': 'eyes'}\n"
    )
    known = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "benchmarks"}
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]
    sys.modules.update(known)


def test_a_suite_of_the_working_folder_is_run_and_goes_on(_working_folder, retina, capsys):
    def bench(*arguments) -> str:
        code = call(["bench", *arguments, "--data", str(retina.parent), "--quiet"])
        out, err = capsys.readouterr()
        assert code == 0 or err
        return out + err

    assert bench("status", "tiny") == "tiny: 0 of 2 runs stored, 2 missing\n"
    assert bench("run", "tiny", "--device", "cpu") == "tiny: 2 new runs, 0 of them failed\n"
    assert bench("run", "tiny", "--device", "cpu") == "tiny: 0 new runs, 0 of them failed\n"
    assert "no suite 'tny' (did you mean tiny?)" in bench("run", "tny")
    assert call(["list", "datasets", "--json"]) == 0
    assert any(d["family"] == "eyes" for d in json.loads(capsys.readouterr().out))
