"""What `metamed exam` reads: tables, folders of facts, published scores, a table to learn from."""

import json

import numpy as np
import pytest

from metamed.cli import call

HEADER = "dataset,method,metric,value,paper"


def write(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def study(path, datasets=range(6), seed=0, methods=4):
    rng = np.random.default_rng(seed)
    rows = [f"d{d},m{m},auc,{0.6 + 0.05 * m + 0.02 * rng.normal():.4f},p" for d in datasets for m in range(methods)]
    return write(path, HEADER, rows)


def answer(capsys, *arguments):
    """(exams by name, what was said on stderr) of `metamed exam ... --json`."""
    code = call(["exam", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return {e["name"]: e for e in json.loads(out)["exams"]}, err


def rankers(found):
    return {row["ranker"]: row for row in next(iter(found.values()))["rows"]}


def test_a_folder_of_facts_gives_families_and_scores(capsys, tmp_path):
    table = study(tmp_path / "new2026_results.csv")
    facts = tmp_path / "facts"
    facts.mkdir()
    write(facts / "families.csv", "table,dataset,family", [f"new2026,d{d},f{d // 2}" for d in range(6)])
    write(facts / "new2026_scores.csv", "target,source_dataset_or_model,transferability_score,value",
          [f"d{d},m{m},LogME,{-m}" for d in range(6) for m in range(4)])  # fmt: skip
    found, _ = answer(capsys, "--table", table, "--facts", facts)
    row = rankers(found)["LogME"]
    assert row["tau"] == pytest.approx(-1, abs=0.4) and row["mae"] is None
    assert row["dtau_ci"] is not None  # three families are enough for an interval


def test_scores_of_a_file_of_their_own_are_rankers(capsys, tmp_path):
    table = study(tmp_path / "results.csv")
    scores = write(tmp_path / "s.csv", "target,source_dataset_or_model,transferability_score,value",
                   [f"d{d},m{m},knn,{m}" for d in range(6) for m in range(4)])  # fmt: skip
    found, _ = answer(capsys, "--table", table, "--scores", scores)
    assert rankers(found)["knn (published)"]["tau"] == pytest.approx(rankers(found)["oracle"]["tau"], abs=0.3)
    assert "knn" in rankers(found)  # the baseline of that name keeps it


def test_learned_from_one_table_and_judged_on_another(capsys, tmp_path):
    old, new = study(tmp_path / "old.csv", range(10, 20), 1), study(tmp_path / "new.csv", range(4), 2)
    found, _ = answer(capsys, "--train", old, "--table", new)
    (result,) = found.values()
    assert result["datasets"] == 4 and result["name"].startswith("new") and rankers(found)["prior_list"]["tau"] > 0.5
    assert call(["exam", "--train", str(old)]) == 2
    assert "--train needs --table" in capsys.readouterr().err


def test_two_tables_need_not_know_the_same_facts(capsys, tmp_path):
    old, new = study(tmp_path / "old.csv", range(10, 20), 1), study(tmp_path / "new.csv", range(6), 2)
    facts = tmp_path / "facts"
    facts.mkdir()
    modalities = [f"d{d},{100 * (d + 1)},{'mri' if d % 2 else 'ct'}" for d in range(6)]
    unknown = [f"d{d},{50 * d}," for d in range(10, 20)]
    write(facts / "datasets.csv", "dataset,n_train,modality", [*modalities, *unknown])
    for pair in ((old, new), (new, old)):
        found, _ = answer(capsys, "--train", pair[0], "--table", pair[1], "--facts", facts)
        assert rankers(found)["metamed"]["tau"] > 0.5


def test_tables_without_common_items_cannot_teach(capsys, tmp_path):
    other = write(tmp_path / "other.csv", HEADER, [f"d{d},n{m},auc,0.{5 + m}{d},p" for d in range(3) for m in range(3)])
    assert call(["exam", "--train", str(other), "--table", str(study(tmp_path / "new.csv"))]) == 4
    assert "0 items in common" in capsys.readouterr().err


def test_columns_that_name_items_and_exams_can_be_said(capsys, tmp_path):
    rows = [f"d{d},m{m},s{s},auc,{0.5 + 0.1 * m + 0.02 * d + 0.01 * s},p,{size}"
            for d in range(4) for m in range(3) for s in range(2) for size in (50, 100)]  # fmt: skip
    table = write(tmp_path / "t.csv", "dataset,method,setting,metric,value,paper,size", rows)
    found, _ = answer(capsys, "--table", table, "--by", "size")
    assert len(found) == 2 and {e["items"] for e in found.values()} == {6}
    found, said = answer(capsys, "--table", table, "--items", "method", "--by", "size")
    assert {e["items"] for e in found.values()} == {3} and "their mean is used" in said
    assert call(["exam", "--table", str(table), "--by", "colour"]) == 3
    assert "no column colour" in capsys.readouterr().err


def test_what_does_not_ship_is_marked(capsys, tmp_path):
    _, said = answer(capsys, "--table", study(tmp_path / "mine.csv"))
    assert "not among the evidence that ships" in said
    _, said = answer(capsys, "--table", study(tmp_path / "medsegbench2024.csv"))
    assert "not among the evidence that ships" not in said


def test_a_folder_alone_adds_the_tables_that_do_not_ship(tmp_path):
    from metamed.cli.examining import not_shipped
    from metamed.cli.options import Common

    study(tmp_path / "kept_aside.csv")
    study(tmp_path / "medsegbench2024.csv")
    write(tmp_path / "families.csv", "table,dataset,family", ["kept_aside,d0,f"])
    (table,) = not_shipped(tmp_path, {}, Common())
    assert table.name.startswith("kept_aside") and table.families[0] == "f" and "not among" in table.notes[0]


def test_a_missing_folder_is_named(capsys, tmp_path):
    assert call(["exam", "--table", str(study(tmp_path / "t.csv")), "--facts", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
