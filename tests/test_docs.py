"""The documentation says what the code does: every command, option, method and meta-feature, and no other."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from metamed.cli.options import COMMON
from metamed.methods import described

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the benchmarks are not installed

from benchmarks.reference_docs import SESSION, command_docs, commands, method_docs, session, with_commands  # noqa: E402

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
AGAIN = "out of date: run `python -m benchmarks.reference_docs`"


def test_every_command_and_option_is_documented():
    assert with_commands(TEXT["cli.md"]) == TEXT["cli.md"], f"docs/cli.md is {AGAIN}"
    known = dict(commands())
    assert {"metamed recommend", "metamed exam", "metamed bench run", "metamed store merge"} <= set(known)
    for name, command in known.items():
        assert len(command.help) > 20 and f"### `{name}" in command_docs()
        assert all(p.help for p in command.params if p.opts[0].startswith("--")), name


def test_every_method_is_documented():
    assert method_docs() == TEXT["methods.md"], f"docs/methods.md is {AGAIN}"
    for name, method in described().items():
        assert f"### `{name}`" in TEXT["methods.md"] and len(method.description) > 20


def test_every_meta_feature_is_documented():
    from metamed.metafeatures import METAFEATURES, PAIR_METAFEATURES

    for name in (*METAFEATURES, *PAIR_METAFEATURES):
        assert f"| `{name}`" in TEXT["meta-features.md"], f"meta-feature {name} is not in docs/meta-features.md"


def _written() -> list[tuple[str, str]]:
    """(page, command line) of every `metamed …` in code blocks and in backquotes."""
    found = []
    for page, text in TEXT.items():
        if page == "architecture.md":  # the plan also names commands that are to come
            continue
        blocks = re.findall(r"^(?: {4}|\s*\$ )(?:.*&& )?(metamed .*)$", text, re.M)
        found += [(page, line) for line in blocks + re.findall(r"`(metamed [^`]+)`", text)]
    return found


@pytest.mark.parametrize(("page", "line"), _written())
def test_commands_in_the_pages_exist(page, line):
    known = dict(commands())
    words = shlex.split(line.replace("…", ""))
    options = [w for w in words if w.startswith("--")]
    if words[1].startswith("--"):
        assert set(options) <= {"--version", "--install-completion", "--help"}
        return
    name = next((n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in known), None)
    assert name or any(n.startswith(" ".join(words[:2]) + " ") for n in known), f"{page}: there is no `{line}`"
    taken = {o for p in known[name].params for o in p.opts} if name else set()
    assert set(options) <= taken, f"{page}: `{line}` has an option that does not exist"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", TEXT[page.name]):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_two_commands_of_the_readme():
    prompts = re.findall(r"^ *\$ (.*)$", TEXT["README.md"], re.M)
    assert "pip install . && metamed recommend --dataset docs/examples/retina.h5" in prompts
    assert "pip install '.[test]' && pytest" in prompts
    assert len(TEXT["README.md"].splitlines()) < 90


def test_the_session_in_the_readme_is_what_comes_out(tmp_path, monkeypatch):
    """Word by word, but for numbers: they may differ in the last digit between machines."""
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path))
    shown = TEXT["README.md"].split(SESSION[0])[1].split(SESSION[1])[0]
    assert re.findall(r"[^\W\d]+", shown) == re.findall(r"[^\W\d]+", session()), f"README.md is {AGAIN}"


def test_python_in_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "own.db"))
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", TEXT["quickstart.md"], re.S)
    names: dict = {}
    exec(compile(code, "quickstart.md", "exec"), names)
    assert capsys.readouterr().out.startswith("retina: 150 images") and names["vector"]["n_samples"] == 150


def test_keys_of_the_json_are_documented():
    from metamed.records import Recommendation
    from metamed.report import as_dict

    empty = Recommendation("x", "classification", "auc", (), (), {}, "")
    for key in as_dict(empty):
        assert f"`{key}`" in TEXT["cli.md"], f"the JSON key {key} is not in docs/cli.md"


def test_common_options_are_said_once():
    section = TEXT["cli.md"].split("### `metamed recommend`")[1].split("###")[0]
    assert not any(f"`--{name}`" in section for name in COMMON)
