"""A Recommendation as text, JSON, Markdown or one HTML page. No paths, patients or header values in any of them."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import metamed
from metamed.dataset import Dataset
from metamed.errors import MetamedError, UnknownName
from metamed.overlays import class_colours, overlays
from metamed.records import Candidate, Recommendation

SCHEMA_VERSION = 1
COLUMNS = ("#", "method", "{measure} [90 %]", "CPU min", "GPU min", "evidence", "source", "settings")
DEVICES = ("cpu", "cuda")
CLOSE = 0.005  # scores nearer than this are the same for all that anybody will notice
TIE = f"= as good as the row above: within {CLOSE}, or within what another seed makes"


def render(
    recommendation: Recommendation, form: str = "text", *, given: str = "FILE", examples: Dataset | None = None
) -> str:
    """The recommendation in a form of `FORMS`: text | json | md | html.

    given: what the user typed as dataset, for the next command of the text; the other forms never hold it.
    examples: a dataset of which the page shows images with the outlines of their masks; the other forms show none.
    Raises UnknownName for another form.
    """
    if form not in FORMS:
        raise UnknownName("report form", form, FORMS)
    more = {"text": (given,), "html": (examples,)}.get(form, ())
    return FORMS[form](recommendation, *more)


def write(recommendation: Recommendation, path: Path, examples: Dataset | None = None) -> None:
    """Write a report; the suffix decides its form: .html, .md, .json or .txt. Raises MetamedError for another one."""
    form = {".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".txt": "text"}.get(path.suffix.lower())
    if form is None:
        raise MetamedError(f"--report {path.name}: the suffix decides the form. Use .html, .md, .json or .txt")
    path.write_text(render(recommendation, form, examples=examples) + "\n", encoding="utf-8")


# ---- what all forms share


def tied(r: Recommendation) -> list[bool]:
    """For each candidate: is its predicted score as good as that of the one above it?

    As good: within `CLOSE`, or within the standard deviation between seeds (`explanation["seed_sd"]`).
    """
    noise = max(r.explanation.get("seed_sd") or 0.0, CLOSE)
    scores = [c.score for c in r.ranking]
    return [i > 0 and abs(scores[i - 1] - scores[i]) <= noise for i in range(len(scores))]  # NaN is never a tie


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _minutes(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return "<0.1" if value < 0.05 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _source(candidate: Candidate) -> str:
    setup = candidate.setup
    return f"{setup.recipe or 'frozen'}: {' + '.join(setup.sources)}" if setup.sources else "from scratch"


def _rows(r: Recommendation) -> list[list[str]]:
    """The ranked table as text, one list per candidate in the order of `COLUMNS`."""
    rows = []
    for i, (c, tie) in enumerate(zip(r.ranking, tied(r), strict=True), start=1):
        known = math.isfinite(c.low) and math.isfinite(c.high)
        rows.append([
            f"{i}{' =' if tie else ''}",
            c.setup.method + ("" if c.runnable else " (no code here)"),
            _number(c.score, 3) + (f" [{_number(c.low, 2)}, {_number(c.high, 2)}]" if known else ""),
            *(_minutes(c.cost.get(device)) for device in DEVICES),
            str(len(c.evidence)),
            _source(c),
            ", ".join(f"{k}={v}" for k, v in sorted(c.setup.hyperparameters.items())) or "default settings",
        ])  # fmt: skip
    return rows


def _shown(r: Recommendation) -> list[list[str]]:
    """Heads and rows of the table without the columns that are empty in every row."""
    rows = _rows(r)
    lines = [[head.format(measure=r.measure) for head in COLUMNS], *rows]
    kept = [i for i in range(len(COLUMNS)) if i < 3 or any(row[i] != "–" for row in rows)]
    return [[line[i] for i in kept] for line in lines]


def _protocol(r: Recommendation) -> str:
    procedure = r.explanation.get("procedure")
    return f"Predicted {r.measure}" + (f" under {procedure}" if procedure else "") + "; 90 % intervals."


def _notes(r: Recommendation) -> dict[str, list[int]]:
    """Note -> ranks of the candidates that carry it."""
    found: dict[str, list[int]] = {}
    for i, c in enumerate(r.ranking, start=1):
        if c.note:
            found.setdefault(c.note, []).append(i)
    return found


# ---- text


def _text(r: Recommendation, given: str) -> str:
    parts = [f"{r.dataset}: {r.facts}" if r.facts else r.dataset, _protocol(r), "", _table(r)]
    if any(tied(r)):
        parts.append(TIE)
    parts += [f"{', '.join(f'#{i}' for i in places)}: {note}" for note, places in _notes(r).items()]
    for title, lines in _sections(r):
        parts += ["", title, *(f"  - {line}" for line in lines)]
    return "\n".join([*parts, "", f"Basis: {r.basis}", f"Next: {_next(r, given)}"])


def _next(r: Recommendation, given: str) -> str:
    rank = next((i for i, c in enumerate(r.ranking, start=1) if c.runnable), None)
    return "none of these has code here" if rank is None else f"metamed run --dataset {given} --rank {rank}"


def _table(r: Recommendation) -> str:
    """The ranked table in plain columns; source and settings, which are long, stand on a line below each row."""
    shown = _shown(r)
    cells = [line[:-2] for line in shown]
    width = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, width, strict=True)).rstrip() for line in cells]
    below = [" " * (width[0] + 2) + f"{row[-2]}; {row[-1]}" for row in shown[1:]]
    return "\n".join([lines[0], *(text for pair in zip(lines[1:], below, strict=True) for text in pair)])


# ---- JSON


def finite(value):
    """`value` with every NaN or infinity as None: JSON has neither."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _candidate(rank: int, c: Candidate, tie: bool) -> dict:
    return {
        "rank": rank,
        "method": c.setup.method,
        "recipe": c.setup.recipe,
        "sources": c.setup.sources,
        "hyperparameters": c.setup.hyperparameters,
        "score": c.score,
        "low": c.low,
        "high": c.high,
        "cost": {device: c.cost.get(device) for device in DEVICES},
        "runnable": c.runnable,
        "evidence": c.evidence,
        "tied": tie,
        "setup": c.setup.id,
        "note": c.note,
    }


def as_dict(r: Recommendation) -> dict:
    """What the JSON form holds, as plain values (docs/cli.md lists the keys); unknown numbers are None."""
    ranking = [_candidate(i, c, t) for i, (c, t) in enumerate(zip(r.ranking, tied(r), strict=True), start=1)]
    return finite({
        "schema_version": SCHEMA_VERSION,
        "dataset": r.dataset,
        "kind": r.kind,
        "basis": r.basis,
        "ranking": ranking,
        "sources": [{"name": name, "weight": weight} for name, weight in r.sources],
        "metafeatures": r.metafeatures,
        "assumptions": r.assumptions,
        "warnings": r.warnings,
        "facts": r.facts,
        "measure": r.measure,
        "versions": {"metamed": metamed.__version__, "python": platform.python_version()},
        **r.explanation,
    })  # fmt: skip


def _json(r: Recommendation) -> str:
    return json.dumps(as_dict(r), indent=1, allow_nan=False, ensure_ascii=False)


# ---- Markdown


def _cell(text: str) -> str:
    return re.sub(r"([|\\`*_<>])", r"\\\1", text)


def _markdown(r: Recommendation) -> str:
    line = "| {} |".format
    heads, *rows = _shown(r)
    table = [line(" | ".join(map(_cell, row))) for row in [heads, *rows]]
    table.insert(1, line(" | ".join("---" for _ in heads)))
    parts = [f"# {_cell(r.dataset)}: what to try first", _cell(r.facts), _protocol(r), "\n".join(table)]
    if any(tied(r)):
        parts.append(TIE)
    for title, lines in _sections(r):
        parts += [f"## {title}", "\n".join(f"- {_cell(text)}" for text in lines)]
    return "\n\n".join(part for part in [*parts, f"Basis: {_cell(r.basis)}"] if part)


def _sections(r: Recommendation) -> list[tuple[str, tuple[str, ...]]]:
    """Title and lines of each part below the table, in the order of all forms."""
    licences, moved = r.explanation.get("licences", {}), r.explanation.get("moved", {})
    weight = dict(r.sources)
    sources = [f"{n}: " + (f"weight {weight[n]:.2f} in an ensemble; " if weight.get(n, 1) < 1 else "") +
               f"licence: {licences.get(n) or 'unknown'}" for n in {**weight, **licences}]  # fmt: skip
    reasons = [f"#{i}: {_moved(moved[c.setup.id])}" for i, c in enumerate(r.ranking, 1) if c.setup.id in moved]
    sections = (("Why", r.explanation.get("why", ())), ("Labels", r.explanation.get("labels", ())),
                ("Masks", r.explanation.get("masks", ())), ("Assessments", r.explanation.get("assessments", ())),
                ("Instances", r.explanation.get("instances", ())),
                ("What moved each of them", reasons),
                ("Best runs on the nearest datasets", r.explanation.get("nearest_runs", ())), ("Sources", sources),
                ("What could be wrong", r.warnings), ("Assumed", r.assumptions))  # fmt: skip
    return [(title, lines) for title, lines in sections if lines]


def _moved(parts: dict) -> str:
    """Place in the list, correction, and the three largest contributions of the trees."""
    trees = sorted(parts.get("trees", {}).items(), key=lambda item: -abs(item[1]))[:3]
    most = ", ".join(f"{name} {value:+.3f}" for name, value in trees)
    return f"prior list {parts['list']:+.2f}, corrected by {parts['correction']:+.2f}" + (f" ({most})" if most else "")


# ---- HTML


def _html(r: Recommendation, examples: Dataset | None = None) -> str:
    from jinja2 import Environment

    heads, *rows = _shown(r)
    template = files("metamed").joinpath("data/report.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(
        r=r, heads=heads, rows=rows, protocol=_protocol(r), tie=TIE if any(tied(r)) else "",
        sections=_sections(r), figure=_figure(r), version=metamed.__version__,
        pictures=[] if examples is None else [(_png(o.picture), o.share) for o in overlays(examples)],
        colours=[] if examples is None else class_colours(examples),
        metafeatures=sorted((k, _number(v, 4)) for k, v in r.metafeatures.items()),
    )  # fmt: skip


def _png(picture) -> str:
    """An RGB array as the address of a PNG that holds it."""
    from base64 import b64encode
    from io import BytesIO

    from matplotlib.image import imsave

    file = BytesIO()
    imsave(file, picture, format="png", metadata={"Software": None})
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def _figure(r: Recommendation) -> str:
    """Predicted scores with their 90 % intervals as inline SVG; empty where the evidence gives no figures."""
    drawn = [(i, c) for i, c in enumerate(r.ranking, start=1) if math.isfinite(c.score)]
    if not drawn:
        return ""
    from io import StringIO

    import matplotlib
    from matplotlib.figure import Figure  # without pyplot: nothing global, no window

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metamed", "font.size": 9}):
        figure = Figure(figsize=(7, 0.8 + 0.32 * len(drawn)), layout="constrained")
        axes = figure.subplots()
        for place, (_, c) in enumerate(drawn):
            axes.plot([c.low, c.high], [place, place], color="#4477aa", linewidth=2)
            axes.plot([c.score], [place], "o", color="#222222")
        axes.set_yticks(range(len(drawn)), [f"{i}  {c.setup.method}" for i, c in drawn])
        axes.invert_yaxis()
        axes.set_xlabel(f"predicted {r.measure}, 90 % interval")
        axes.spines[["top", "right"]].set_visible(False)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


FORMS: dict[str, Callable] = {"text": _text, "json": _json, "md": _markdown, "html": _html}
