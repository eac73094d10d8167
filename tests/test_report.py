"""Reports: every form says the same, NaN never reaches JSON, ties are shown, and one HTML file is enough."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from metamed.errors import MetamedError, UnknownName
from metamed.records import Candidate, Recommendation, Setup
from metamed.report import FORMS, as_dict, render, tied, write

NAN = math.nan


@pytest.fixture
def answer() -> Recommendation:
    ranking = (
        Candidate(Setup("resnet", {"depth": 18}, "finetune", ("imagenet.x",)), 0.91234, 0.85, 0.96, ("r1", "r2"),
                  {"cpu": 12.34}),
        Candidate(Setup("probe.linear", {}, None, ("a.b", "imagenet.x")), 0.91199, 0.83, 0.97, ("r3",), {"cpu": 0.01}),
        Candidate(Setup("small_cnn", {"width": 32}), 0.85, 0.7, 0.93, ("r4",), {"cuda": 3.0}),
        Candidate(Setup("nowhere_net"), NAN, NAN, NAN, ("p1",), runnable=False, note="published only"),
    )  # fmt: skip
    explanation = {"seed": 3, "digest": "d" * 40, "procedure": "a holdout", "why": ["nearest: x", "mean rank 1.5"],
                   "licences": {"imagenet.x": "Apache-2.0", "a.b": ""}, "limit": NAN}  # fmt: skip
    return Recommendation("retina", "classification", "auc", ranking, (("imagenet.x", 0.6), ("a.b", 0.4)),
                          {"n": 20.0, "sharpness": NAN}, "prior list on 5 families", "20 images <b>", ("labels: 'y'",),
                          ("no patient ids!",), explanation)  # fmt: skip


def test_equal_scores_are_ties_and_unknown_ones_are_not(answer):
    assert tied(answer) == [False, True, False, False]
    noisy = replace(answer, explanation=answer.explanation | {"seed_sd": 0.1})
    assert tied(noisy) == [False, True, True, False]
    unknown = replace(answer.ranking[3], setup=Setup("other"))
    assert tied(replace(answer, ranking=(answer.ranking[3], unknown))) == [False, False]


def test_what_moved_a_candidate_is_said_when_asked(answer):
    moved = {answer.ranking[0].setup.id: {"list": 0.5, "correction": -0.1, "trees": {"a": 0.01, "b": -0.3}}}
    asked = replace(answer, explanation=answer.explanation | {"moved": moved})
    assert "#1: prior list +0.50, corrected by -0.10 (b -0.300, a +0.010)" in render(asked)
    assert "What moved" not in render(answer)


def test_text_holds_what_a_reader_needs_in_order(answer):
    text = render(answer, given="some/retina.h5")
    parts = ["retina: 20 images", "Predicted auc under a holdout", "0.912 [0.85, 0.96]", "2 =",
             "as good as the row above", "Why", "mean rank 1.5", "Sources",
             "imagenet.x: weight 0.60 in an ensemble; licence: Apache-2.0", "licence: unknown",
             "What could be wrong", "no patient ids!", "Assumed", "Basis: prior list",
             "Next: metamed run --dataset some/retina.h5 --rank 1"]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "nan" not in text


def test_next_command_skips_what_cannot_be_run(answer):
    turned = replace(answer, ranking=answer.ranking[::-1])
    assert render(turned).endswith("--rank 2")
    assert render(replace(answer, ranking=answer.ranking[3:])).endswith("none of these has code here")


def test_json_is_strict_and_has_the_documented_keys(answer):
    values = json.loads(render(answer, "json"), parse_constant=lambda c: pytest.fail(f"{c} in JSON"))
    assert {"schema_version", "dataset", "kind", "basis", "ranking", "sources", "metafeatures", "assumptions",
            "warnings", "measure", "versions", "seed"} <= set(values)  # fmt: skip
    assert {"rank", "method", "recipe", "sources", "hyperparameters", "score", "low", "high", "cost", "runnable",
            "evidence"} <= set(values["ranking"][0])  # fmt: skip
    assert values["ranking"][0]["cost"] == {"cpu": 12.34, "cuda": None}
    assert values["ranking"][3]["score"] is None and values["metafeatures"]["sharpness"] is None
    assert [c["rank"] for c in values["ranking"]] == [1, 2, 3, 4] and values["seed"] == 3
    assert values == as_dict(answer)


def test_markdown_table_is_as_wide_in_every_row(answer):
    rows = [line for line in render(answer, "md").splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(answer.ranking)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {rows[0].count("|")} and len(rows) > 4
    assert "20 images \\<b\\>" in render(answer, "md")


class _Page(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_page_without_scripts_or_links_and_draws_the_intervals(answer):
    text, page = render(answer, "html"), _Page()
    page.feed(text)
    assert page.open == [] and "script" not in page.tags and page.links == [] and "@import" not in text
    assert "svg" in page.tags and text == render(answer, "html")
    assert "&lt;b&gt;" in text and "<b>" not in text
    assert text.count("svg") and "nowhere_net" in text


def test_html_without_any_figure_has_no_drawing(answer):
    assert "<svg" not in render(replace(answer, ranking=answer.ranking[3:]), "html")


def test_no_form_but_the_text_holds_what_the_user_typed(answer):
    for form in set(FORMS) - {"text"}:
        assert "secret" not in render(answer, form, given="/home/secret/retina.h5")


def test_the_suffix_decides_the_form(answer, tmp_path):
    for name, start in (("r.json", "{"), ("r.md", "# retina"), ("r.html", "<!doctype html>"), ("r.txt", "retina:")):
        write(answer, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    with pytest.raises(MetamedError, match=r"r\.pdf.*\.html"):
        write(answer, tmp_path / "r.pdf")
    with pytest.raises(UnknownName, match="jsn.*json"):
        render(answer, "jsn")
