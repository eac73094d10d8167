"""Writes docs/methods.md, commands of docs/cli.md, session of README.md: `python -m benchmarks.reference_docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS, EXAMPLE = ROOT / "docs", "docs/examples/retina.h5"
START, END = "<!-- commands -->\n", "<!-- end of commands -->\n"
SESSION = "<!-- session -->\n", "<!-- end of session -->\n"
KINDS = {"classification": "Classification", "segmentation": "Segmentation", "mil": "Multiple-instance learning",
         "similarity": "Similarity", "transfer": "Recipes: how a source is used"}  # fmt: skip
HEAD = """# Methods

*Generated from the signatures by `python -m benchmarks.reference_docs`; do not edit.*

What can be run. Every method also takes the settings of training, listed last.
"""


def commands() -> Iterator[tuple[str, object]]:
    """(full name, command) of everything that `metamed` understands."""
    import typer.main

    from metamed.cli import app

    def walk(group, words: list[str]) -> Iterator[tuple[str, object]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, [*words, name])
            else:
                yield " ".join([*words, name]), command

    return walk(typer.main.get_command(app), ["metamed"])


def _options(command, wanted) -> str:
    rows = [p for p in command.params if p.opts[0].startswith("--") and wanted(p.name)]
    if not rows:
        return ""
    lines = [f"| `{p.opts[0]}` | {_cell(p.help or '')}{' Required.' if p.required else ''} |" for p in rows]
    return "\n".join(["| option | what |", "|---|---|", *lines]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_docs() -> str:
    """The options that all commands take, then each command with its own."""
    from metamed.cli.options import COMMON

    parts, last = [], None
    for name, command in commands():
        arguments = " ".join(p.name.upper() for p in command.params if not p.opts[0].startswith("--"))
        own = _options(command, lambda n: n not in COMMON and n != "help")
        parts.append("\n".join([f"### `{name} {arguments}".rstrip() + "`", "", command.help.strip(), "", own]))
        last = command
    common = _options(last, lambda n: n in COMMON)
    return "\n".join(["Every command also takes", "", common, *parts])


def _domain(domain) -> str:
    if hasattr(domain, "options"):
        return ", ".join(f"`{option}`" for option in domain.options)
    return f"{domain.low} to {domain.high}" + (", logarithmic" if getattr(domain, "log", False) else "")


def _space(space: dict, defaults: dict) -> str:
    lines = [f"| `{name}` | {_domain(domain)} | `{defaults[name]}` |" for name, domain in space.items()]
    return "\n".join(["| hyperparameter | domain | default |", "|---|---|---|", *lines]) + "\n" if lines else ""


def method_docs() -> str:
    """Every method that ships with its hyperparameters."""
    from metamed.methods import described
    from metamed.training import DEFAULTS, SPACE, segmentation

    parts = [HEAD]
    for kind, title in KINDS.items():
        found = described(kind).values()
        parts += [f"## {title}\n"] * bool(found)
        parts += [f"### `{m.name}`\n\n{m.description}\n\n{_space(m.space, m.defaults)}" for m in found]
    parts += ["## Training\n", _space(SPACE, DEFAULTS)]
    own = {name: domain for name, domain in segmentation.SPACE.items() if name not in SPACE}
    changed = {name: SPACE[name] for name in SPACE if segmentation.DEFAULTS[name] != DEFAULTS[name]}
    return "\n".join([*parts, "### Of segmenters\n", _space(own | changed, segmentation.DEFAULTS), segmentation_help()])


def segmentation_help() -> str:
    """What the parameters of segmenters mean, from where they are written."""
    from inspect import getdoc

    from metamed.training.segmentation import settings

    return getdoc(settings).split("\n\n", 1)[1] + "\n"


def between(text: str, start: str, end: str, new: str) -> str:
    """The text with what stands between two marks replaced."""
    before, rest = text.split(start)
    return before + start + new + end + rest.split(end)[1]


def with_commands(text: str) -> str:
    """docs/cli.md with its commands as they are now."""
    return between(text, START, END, command_docs())


def session() -> str:
    """The README's session: its first command and what it prints, from the evidence that ships and no other."""
    import metamed

    dataset = metamed.read(ROOT / EXAMPLE)
    answer = metamed.recommend(dataset, metamed.Store.embedded())
    return f"```text\n$ metamed recommend --dataset {EXAMPLE}\n{metamed.render(answer, given=EXAMPLE)}\n```\n"


def main() -> None:
    cli = DOCS / "cli.md"
    cli.write_text(with_commands(cli.read_text(encoding="utf-8")), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(between(readme.read_text(encoding="utf-8"), *SESSION, session()), encoding="utf-8")
    (DOCS / "methods.md").write_text(method_docs(), encoding="utf-8")


if __name__ == "__main__":
    main()
