"""An assessment in words and numbers: sections of rows for a terminal or a page."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path

from metamed.assessing import Agreed, Assessed
from metamed.assessing.conditions import LOGARITHMIC, Comparison, Conditions
from metamed.assessing.values import MEASURES
from metamed.crowd import Quality
from metamed.errors import MetamedError

LONGEST = 40  # annotators in a terminal; all of them are in the other forms
MOST_MEASURES = 4  # of the power in a terminal


@dataclass(frozen=True)
class Section:
    """rows: cells of text, the first row their heads. lines: what is said below."""

    title: str
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()


def sections(found: Assessed, longest: int | None = LONGEST) -> list[Section]:
    """All that was found out, the most important first."""
    parts = [_head(found), _annotators(found, longest), *map(_agreed, found.agreed)]
    if found.conditions is not None:
        parts += _conditions(found.conditions)
    return parts + ([_power(found, longest and MOST_MEASURES)] if found.power else [])


def _head(found: Assessed) -> Section:
    people = sum(a.kind != "slot" for a in found.annotators)
    slots = len(found.annotators) - people
    who = " and ".join(f"{n:,} {word}{'s' * (n != 1)}" for n, word in ((people, "annotator"), (slots, "slot")) if n)
    odd = [f"{n:,} × {what}" for what, n in found.found.items()]
    lines = [f"assumed: {note}" for note in found.notes] + (["found: " + ", ".join(odd)] if odd else [])
    title = f"{found.name}: {found.answers:,} {found.kind} of {found.images:,} images by {who}"
    return Section(title, lines=tuple(lines))


# -- annotators --------------------------------------------------------------------------------------------------------

_COLUMNS = {
    "answers": lambda a: f"{a.answers:,}",
    "quality": lambda a: _with_interval(a.quality, a.low, a.high),
    "kind": lambda a: a.kind,
    "others say": lambda a: _quality(a.left_out),
    "agreement": lambda a: _number(a.agreement),
    "right": lambda a: _number(a.accuracy) + (f" of {a.checked}" if a.checked else ""),
    "constant": lambda a: _number(a.constancy),
    "no circle": lambda a: _number(a.transitivity),
    "left": lambda a: _number(a.left),
    "seconds": lambda a: _number(a.seconds, 1),
    "": lambda a: "" if a.kept else "would be dropped",
}


_WORDS = {
    "triplets": "quality: the probability that an answer agrees with the truth, with its 95 % interval; 0.5 is "
    "guessing; agreement: with the others on the same question",
    "ratings": "quality: the probability that two images, which the others put in an order, are put in the same, with "
    "its 95 % interval; 0.5 is guessing; agreement: with the others beyond chance, of ranks; 0 is chance",
}


_OTHERS = "others say: the share of answers that is what the others' answers say, judged without him"
_CIRCLES = "no circle: the share of comparisons that no others of the same annotator contradict (x < y < z < x)"


def _annotators(found: Assessed, longest: int | None) -> Section:
    shown = found.annotators[:longest]
    columns = {head: [say(a) for a in shown] for head, say in _COLUMNS.items()}
    columns = {head: cells for head, cells in columns.items() if set(cells) - {"–", ""}}
    rows = [("annotator", *columns), *zip([a.name for a in shown], *columns.values(), strict=True)]
    lines = [f"… and {len(found.annotators) - len(shown)} more"] if len(shown) < len(found.annotators) else []
    known = [a for a in found.annotators if a.kind != "slot"]
    if known:
        lines.append(_WORDS[found.kind])
        lines += [_OTHERS] if "others say" in columns else []
        lines += [_CIRCLES] if "no circle" in columns else []
        lines += _verdict(found, Counter(a.kind for a in known))
    return Section("Annotators", tuple(rows), tuple(lines))


def _verdict(found: Assessed, kinds: Counter) -> list[str]:
    dropped = found.dropped
    answers = sum(a.answers for a in dropped)
    lines = [f"below {found.minimum:g}: {len(dropped)} annotators with {answers:,} of {found.answers:,} answers "
             f"({answers / found.answers:.1%}) would be dropped"]  # fmt: skip
    if kinds["inverter"]:
        lines.append(f"inverters: {kinds['inverter']}. They see what the others see and answer the opposite: an "
                     "embedding that knows annotators learns from them, so that dropping them is a loss")  # fmt: skip
    if kinds["unknown"]:
        lines.append(f"unknown: {kinds['unknown']}, of whom there are too few answers to tell them from guessers")
    return lines


def _agreed(found: Agreed) -> Section:
    """What the ratings of an attribute agree on."""
    values = [f"{v:g}" for v in found.values]
    without = any(r.left_out for r in found.raters)
    head = ("annotator", "quality", "kind", *["others say"] * without, *(f"right where {v}" for v in values))
    rows = [(r.name, _quality(r.quality), r.quality.kind, *[_quality(r.left_out)] * without, *map(_number, r.right))
            for r in found.raters]  # fmt: skip
    shares = [", ".join(f"{v}: {share:.3f}" for v, share in zip(values, of, strict=True))
              for of in (found.prevalence, found.majority)]  # fmt: skip
    lines = (f"true scores of {found.images:,} images: {shares[0]}; by majority vote: {shares[1]}",
             f"{found.different:,} images have another score than by majority vote",
             "quality: the probability that an answer is the true score; the model sees scores as names",
             *[_OTHERS] * without)  # fmt: skip
    return Section(f"{found.attribute}: what they agree on (Dawid and Skene's model)", (head, *rows), lines)


# -- conditions --------------------------------------------------------------------------------------------------------


def _conditions(found: Conditions) -> list[Section]:
    rows = [("condition", "answers", "people", "slots", "images", "scales")]
    for g in found.groups:
        scales = ", ".join(f"{a} {low:g} to {high:g}" for a, (low, high, _) in list(g.scales.items())[:4])
        counts = (f"{n:,}" for n in (g.answers, g.annotators, g.slots, g.images))
        rows.append((g.name, *counts, scales + ("…" if len(g.scales) > 4 else "")))
    parts = [Section("Conditions", tuple(rows), found.notes)]
    for measure in MEASURES:
        mine = [c for c in found.comparisons if c.measure == measure]
        if mine:
            parts.append(_comparisons(measure, mine))
    if found.correlations:
        head = ("attribute", "condition", "images", "correlation [95 %]", "p", "adjusted")
        lines = [(c.attribute, c.condition, f"{c.images:,}", _with_interval(c.value, c.low, c.high), _p(c.p),
                  _p(c.adjusted)) for c in found.correlations]  # fmt: skip
        title = f"Do conditions order the images as {found.reference} does? Spearman's correlation of mean scores"
        parts.append(Section(title, (head, *lines)))
    return parts


def _comparisons(measure: str, mine: list[Comparison]) -> Section:
    head = ("attribute", "condition", "value", mine[0].reference, "difference [95 %]", "g [95 %]", "p", "adjusted",
            "units", "compared")  # fmt: skip
    log = measure in LOGARITHMIC
    rows = [_compared(c, log) for c in mine]
    kept = [i for i in range(len(head)) if any(row[i] not in ("", "–") for row in rows)]
    lines = [f"difference: a factor, {mine[0].reference} being 1"] if log else []
    if any(c.unit in ("images", "questions") for c in mine):
        lines.append("people do not persist on both sides, so that images were exchanged: where few people gave many "
                     "answers, intervals are too narrow")  # fmt: skip
    table = tuple(tuple(row[i] for i in kept) for row in [head, *rows])
    lines.append(f"p: permutation test; adjusted: for {len(mine)} tests (Holm)")
    return Section(f"{measure[0].upper()}{measure[1:]}: {MEASURES[measure]}", table, tuple(lines))


def _compared(c: Comparison, log: bool) -> tuple[str, ...]:
    d = c.difference
    first, second, gap, low, high = (d.first, d.second, d.difference, d.low, d.high)
    if log:
        first, second, gap, low, high = map(math.exp, (first, second, gap, low, high))
    n = f"{d.n[0]}" if d.n[0] == d.n[1] and d.paired else f"{d.n[0]} and {d.n[1]}"
    return (c.attribute, c.condition, _number(first), _number(second), _with_interval(gap, low, high),
            _with_interval(d.effect, d.effect_low, d.effect_high), _p(d.p), _p(c.adjusted), f"{n} {c.unit}",
            "within" if d.paired else "between")  # fmt: skip


# -- power -------------------------------------------------------------------------------------------------------------


def _power(found: Assessed, most: int | None) -> Section:
    rows, lines = [], ["two conditions, each person in one; test at 5 % that finds the difference in 80 % of studies"]
    for p in found.power[:most]:
        what = f"{p.measure} {p.attribute}".strip()
        by = {}
        for need in p.needs:
            by.setdefault(need.effect, []).append(need)
        if not rows:
            first = next(iter(by.values()))
            rows.append(("measure", "difference", *(f"{n.answers} answers each" for n in first)))
        rows += [(what, f"{effect:g}", *(f"2 × {n.people:,} people, {n.assessments:,} answers" for n in needs))
                 for effect, needs in by.items()]  # fmt: skip
        source = "" if p.known else " (supposed: nobody here persists with enough answers)"
        lines.append(f"{what}: mean {p.mean:.2f}, standard deviation between people {p.between:.2f}, of an answer "
                     f"{p.within:.2f}{source}")  # fmt: skip
    if len(found.power[:most]) < len(found.power):
        lines.append(f"… and {len(found.power) - most} attributes with fewer answers")
    return Section("How much another study needs", tuple(rows), tuple(lines))


# -- numbers and pages -------------------------------------------------------------------------------------------------


def _number(value: float, digits: int = 2) -> str:
    return "–" if not math.isfinite(value) else f"{value:.{digits}f}"


def _with_interval(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "–"
    known = math.isfinite(low) and math.isfinite(high)
    return _number(value) + (f" [{_number(low)}, {_number(high)}]" if known else "")


def _quality(found: Quality | None) -> str:
    return "–" if found is None else _with_interval(found.value, found.low, found.high)


def _p(value: float) -> str:
    return "–" if not math.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def text(found: tuple[Assessed, ...], longest: int | None = LONGEST) -> str:
    """For a terminal."""
    out = []
    for section in (s for one in found for s in sections(one, longest)):
        out += ["", section.title] if out else [section.title]
        width = [max(map(len, column)) for column in zip(*section.rows, strict=True)]
        out += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in section.rows]
        out += [f"  {line}" for line in section.lines]
    return "\n".join(out)


def write(found: tuple[Assessed, ...], path: Path) -> None:
    """A report: .html (with the plot), .md, .json or .txt. Raises MetamedError for another suffix."""
    forms = {".html": html, ".htm": html, ".md": markdown, ".json": as_json, ".txt": lambda f: text(f, None)}
    if path.suffix.lower() not in forms:
        raise MetamedError(f"--report {path.name}: the suffix decides the form. Use .html, .md, .json or .txt")
    path.write_text(forms[path.suffix.lower()](found) + "\n", encoding="utf-8")


def as_json(found: tuple[Assessed, ...]) -> str:
    """One document; what is not known is null."""
    import json
    from dataclasses import asdict

    def finite(value):
        if isinstance(value, dict):
            return {k: finite(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite([asdict(one) for one in found]), indent=1, ensure_ascii=False)


def markdown(found: tuple[Assessed, ...]) -> str:
    out = []
    for section in (s for one in found for s in sections(one, None)):
        out.append(f"## {section.title}\n")
        if section.rows:
            head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in section.rows)
            out += [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
        out += ["", *(f"- {line}" for line in section.lines), ""]
    return "\n".join(out)


_STYLE = ("body{font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem}"
          "table{border-collapse:collapse;display:block;overflow-x:auto}"
          "td,th{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #8884}"
          "svg{max-width:100%;height:auto}")  # fmt: skip


def html(found: tuple[Assessed, ...]) -> str:
    """One page that needs nothing else."""
    from metamed.assessing.plots import svg

    out = [f"<!doctype html><meta charset=utf-8><title>{escape(found[0].name)}</title><style>{_STYLE}</style>"]
    for one in found:
        for section in sections(one, None):
            out.append(f"<h2>{escape(section.title)}</h2>")
            cells = [[f"<{tag}>{escape(cell)}</{tag}>" for cell in row]
                     for tag, row in zip(["th"] + ["td"] * len(section.rows), section.rows, strict=False)]  # fmt: skip
            out += ["<table>", *(f"<tr>{''.join(row)}</tr>" for row in cells), "</table>"] if cells else []
            out += ["<ul>", *(f"<li>{escape(line)}</li>" for line in section.lines), "</ul>"] if section.lines else []
        if one.conditions is not None:
            out.append(svg(one.conditions))
    return "\n".join(out)
