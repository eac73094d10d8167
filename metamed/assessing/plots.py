"""Conditions against one of them, drawn: differences with their intervals, a panel a measure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from metamed.assessing.conditions import LOGARITHMIC, Conditions

_COLOURS = ("#1f6fb4", "#c4501b", "#2a8a4a", "#7a4fa3", "#8a6d1f", "#b03a6f", "#3f7f86", "#666666")
_MOST = 30  # conditions in a panel


def figure(found: Conditions):
    """A matplotlib figure: rows are conditions, colours attributes, lines 95 % intervals, 0 (or a factor of 1) no
    difference to the reference."""
    from matplotlib.figure import Figure

    panels = _panels(found)
    names = sorted({row[0] for rows in panels.values() for row in rows}, reverse=True)[-_MOST:]
    attributes = sorted({row[1] for rows in panels.values() for row in rows})
    height = 1.6 + 0.16 * len(names) * max(2, len(attributes))
    drawn = Figure(figsize=(max(6.0, 3.4 * len(panels)), height), layout="constrained")
    places = np.atleast_1d(drawn.subplots(1, len(panels), sharey=True))
    for axes, (title, rows) in zip(places, panels.items(), strict=True):
        _panel(axes, title, [row for row in rows if row[0] in names], names, attributes)
    if attributes != [""]:
        handles, labels = _legend(attributes)
        drawn.legend(handles, labels, loc="outside upper center", ncols=min(4, len(attributes)), frameon=False)
    return drawn


def _panels(found: Conditions) -> dict[str, list[tuple[str, str, float, float, float]]]:
    """Title -> (condition, attribute, value, low, high)."""
    panels: dict[str, list] = {}
    for c in found.comparisons:
        d = c.difference
        row = (d.difference, d.low, d.high)
        if c.measure in LOGARITHMIC:
            row = tuple(np.exp(row))
        title = f"{c.measure},\n" + ("as a factor of " if c.measure in LOGARITHMIC else "minus ") + found.reference
        panels.setdefault(title, []).append((c.condition, c.attribute, *row))
    for c in found.correlations:
        title = f"rank correlation with\n{found.reference}, same images"
        panels.setdefault(title, []).append((c.condition, c.attribute, c.value, c.low, c.high))
    return panels


def _panel(axes, title: str, rows: list, names: list[str], attributes: list[str]) -> None:
    axes.axvline(1 if "factor" in title else 0, color="0.7", linewidth=1, zorder=0)
    for condition, attribute, value, low, high in rows:
        k = attributes.index(attribute)
        y = names.index(condition) + (0.5 - (k + 0.5) / len(attributes)) * 0.7
        axes.plot([low, high], [y, y], color=_COLOURS[k % len(_COLOURS)], linewidth=1.4)
        axes.plot([value], [y], "o", color=_COLOURS[k % len(_COLOURS)], markersize=4)
    axes.set_title(title, fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _legend(attributes: list[str]):
    from matplotlib.lines import Line2D

    colours = [_COLOURS[k % len(_COLOURS)] for k in range(len(attributes))]
    return [Line2D([], [], marker="o", markersize=4, color=colour) for colour in colours], attributes


def svg(found: Conditions) -> str:
    """The figure as an element of a page."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "metamed", "svg.fonttype": "none"}):
        figure(found).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def save(found: Conditions, path: Path) -> None:
    """The figure as a file; the suffix decides its form (.svg, .png, .pdf)."""
    figure(found).savefig(path, dpi=110)
