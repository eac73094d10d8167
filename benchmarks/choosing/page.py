"""Tables, pictures and sentences of the page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.choosing.questions import ORDER, Rows

BLUE, GREY, COLOURS = "#4477aa", "#888888", ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def table(head: str, rows: Rows, columns: tuple[str, ...]) -> str:
    """Markdown: a row a question, a column a size of the target (those that nobody ran are left out)."""
    kept = [i for i, _ in enumerate(columns) if any(effects[i].families for _, effects in rows)]
    lines = [f"| {head} | " + " | ".join(columns[i] for i in kept) + " |", "|---" * (len(kept) + 1) + "|"]
    for name, effects in rows:
        if any(effects[i].families for i in kept):
            lines.append(f"| {name} | " + " | ".join(effects[i].text() for i in kept) + " |")
    return "\n".join(lines)


def listing(head: str, rows: Rows) -> str:
    """Markdown: one effect a row, with what it rests on."""
    lines = [f"| {head} | effect | families | runs |", "|---|---|---|---|"]
    lines += [f"| {name} | {e.text()} | {e.families} | {e.runs} |" for name, (e,) in rows if e.families]
    return "\n".join(lines)


def lines(path: Path, rows: Rows, title: str, sizes: tuple[str, ...] = ORDER) -> None:
    """Effects over the sizes of the target, a line a row, bars the 95 % intervals, as SVG."""
    with _drawing(6.5, 3.6) as (figure, axes):
        for k, (name, effects) in enumerate(rows):
            there = [i for i, e in enumerate(effects) if e.ends]
            x = [i + 0.06 * (k - len(rows) / 2) for i in there]
            mean = [effects[i].mean for i in there]
            ends = [[m - effects[i].ends[0], effects[i].ends[1] - m] for m, i in zip(mean, there, strict=True)]
            colour = COLOURS[k % len(COLOURS)]
            axes.errorbar(x, mean, yerr=list(zip(*ends, strict=True)) or None, marker="o", markersize=3.5,
                          linewidth=1.2, color=colour, label=name)  # fmt: skip
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlabel("labelled images of the target")
        axes.set_ylabel(title)
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        _save(figure, path)


def bars(path: Path, rows: Rows, title: str) -> None:
    """One effect a row with its 95 % interval, as SVG."""
    rows = [(name, e) for name, (e,) in rows if e.ends]
    with _drawing(6.5, 0.6 + 0.2 * len(rows)) as (figure, axes):
        for place, (_, effect) in enumerate(rows):
            axes.plot(effect.ends, [place, place], color=BLUE, linewidth=2)
            axes.plot([effect.mean], [place], "o", color="#222222", markersize=3.5)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel(title)
        _save(figure, path)


class _drawing:
    """A figure whose file is the same each time it is made of the same data."""

    def __init__(self, width: float, height: float):
        self.size = width, height

    def __enter__(self):
        import matplotlib
        from matplotlib.figure import Figure

        self.context = matplotlib.rc_context({"svg.hashsalt": "metamed", "font.size": 8})
        self.context.__enter__()
        figure = Figure(figsize=self.size, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        return figure, axes

    def __exit__(self, *error) -> None:
        self.context.__exit__(*error)


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
