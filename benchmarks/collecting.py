"""What the collecting page gains by choosing its questions, and how a real crowd compares with real students.

python -m benchmarks.collecting choose        simulated people answer questions chosen, or drawn at random: a row as
                                              soon as it is measured (results/collecting.csv); goes on where it stopped
python -m benchmarks.collecting draw          the figure of them (results/collecting.svg)
python -m benchmarks.collecting conditions SHARED     ENHANCE's crowd against its 24 groups of students, as a figure
                                              (results/conditions.svg) and a table (results/conditions.md)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from benchmarks.crowd_page import half_width
from metamed.assessments import Triplets
from metamed.collecting.choosing import LEARN_EVERY, Chooser

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "collecting.csv"
FACTS = ("images", "people", "strategy", "seed", "answers", "accuracy")
IMAGES, STEPS, SEEDS = (40,), (50, 100, 150, 200, 300), 5
PEOPLE = {"informed": (6.0,) * 5, "one in three guesses": (6.0, 6.0, 6.0, 6.0, 0.0, 0.0)}  # slopes
HELD_OUT = 4000


def main(what: str, *more: str) -> None:
    {"choose": choose, "draw": draw, "conditions": conditions}[what](*more)


# -- questions chosen, or drawn


def choose() -> None:
    """Every strategy from the same people, with the same seeds."""
    done = set()
    if TABLE.exists():
        with TABLE.open() as file:
            done = {tuple(row[name] for name in FACTS[:4]) for row in csv.DictReader(file)}
    for seed in range(SEEDS):
        for images in IMAGES:
            for people in PEOPLE:
                for strategy in ("chosen", "at random"):
                    key = (str(images), people, strategy, str(seed))
                    if key not in done:
                        _write([(*key, n, f"{accuracy:.4f}") for n, accuracy in one(images, people, strategy, seed)])


def _write(rows: list[tuple]) -> None:
    new = not TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([FACTS, *rows] if new else rows)


def one(images: int, people: str, strategy: str, seed: int) -> list[tuple[int, float]]:
    """(answers, accuracy on held-out noiseless triplets) as a study goes on."""
    from metamed.crowd import embed

    rng = np.random.default_rng(seed)
    position = rng.normal(size=(images, 2)) / 2  # mean squared distance 1
    chooser, found = Chooser(np.arange(images), adaptive=strategy == "chosen"), []
    held_out = chooser.draw(rng, HELD_OUT)
    truth = _nearer(position, held_out) > 0
    rows, answers = np.empty((0, 6), int), None
    while len(rows) < STEPS[-1]:
        new = np.array([chooser.choose(rng) for _ in range(LEARN_EVERY)])
        rows = np.vstack([rows, _answered(position, new, np.array(PEOPLE[people]), rng)])
        answers = Triplets(*rows[:, :3].T, rows[:, 3], rows[:, 4])
        chooser.learn(answers, wait=True)
        if len(rows) in STEPS:
            guess = embed(answers, 2, images=images, seed=seed).probability(*held_out.T)
            right = np.where(guess == 0.5, 0.5, (guess > 0.5) == truth)
            found.append((len(rows), float(right.mean())))
    return found


def _nearer(position: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """By how much the second of (anchor, one, another) is nearer than the third."""
    one, another = (np.linalg.norm(position[rows[:, 0]] - position[rows[:, k]], axis=1) for k in (1, 2))
    return another - one


def _answered(position, rows, slopes, rng) -> np.ndarray:
    """Rows (anchor, closer, farther, annotator, side, 0); each question goes to somebody, sides are drawn."""
    who, swap = rng.integers(len(slopes), size=len(rows)), rng.random(len(rows)) < 0.5
    rows = np.where(swap[:, None], rows[:, [0, 2, 1]], rows)
    left = rng.random(len(rows)) < 1 / (1 + np.exp(-slopes[who] * _nearer(position, rows)))
    closer, farther = np.where(left, rows[:, 1], rows[:, 2]), np.where(left, rows[:, 2], rows[:, 1])
    return np.column_stack([rows[:, 0], closer, farther, who, ~left, np.zeros(len(rows), int)])


def summary() -> dict[tuple[str, str, str], list[tuple[int, float, float, int]]]:
    """(images, people, strategy) -> (answers, mean accuracy, half of its 95 % interval, seeds)."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    found: dict = {}
    for key in dict.fromkeys((r["images"], r["people"], r["strategy"]) for r in rows):
        for n in STEPS:
            values = [float(r["accuracy"]) for r in rows if (r["images"], r["people"], r["strategy"]) == key
                      and int(r["answers"]) == n]  # fmt: skip
            if len(values) > 1:
                found.setdefault(key, []).append((n, float(np.mean(values)), half_width(values), len(values)))
    return found


def gains() -> dict[tuple[str, int], tuple[float, float]]:
    """(people, answers) -> what choosing gained over drawing in the same study: mean, half of its 95 % interval."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    of = {(r["people"], int(r["answers"]), r["seed"], r["strategy"]): float(r["accuracy"]) for r in rows}
    paired: dict = {}
    for people, n, seed, strategy in of:
        if strategy == "chosen" and (people, n, seed, "at random") in of:
            paired.setdefault((people, n), []).append(of[people, n, seed, strategy] - of[people, n, seed, "at random"])
    return {key: (float(np.mean(values)), half_width(values)) for key, values in paired.items()}


def draw() -> None:
    import matplotlib
    from matplotlib.figure import Figure

    found = summary()
    panels = list(dict.fromkeys(key[:2] for key in found))
    figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True):
        for strategy, colour in (("chosen", "#1f6fb4"), ("at random", "#c4501b")):
            n, mean, half, _ = map(np.array, zip(*found[(*panel, strategy)], strict=True))
            axes.plot(n, mean, "o-", color=colour, label=strategy, markersize=4)
            axes.fill_between(n, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(f"{panel[0]} images, people: {panel[1]}", fontsize=9)
        axes.set_xlabel("answers", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
    figure.axes[0].set_ylabel("accuracy on held-out triplets", fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=9)
    with matplotlib.rc_context({"svg.hashsalt": "metamed", "svg.fonttype": "none"}):
        figure.savefig(RESULTS / "collecting.svg", metadata={"Date": None, "Creator": None})
    for key, rows in found.items():
        print(*key, " ".join(f"{n}: {mean:.3f} ± {half:.3f} ({seeds})" for n, mean, half, seeds in rows), sep="; ")
    for (people, n), (mean, half) in gains().items():
        print(f"{people}, {n} answers: choosing gained {mean:+.3f} ± {half:.3f}")


# -- a real crowd against real students


def conditions(shared: str) -> None:
    from metamed.assessing import Assessed, compare, showing
    from metamed.assessing.plots import svg
    from metamed.readers import read_assessments

    path = Path(shared) / "data" / "crowd" / "enhance_skin_abc.csv.gz"
    read = read_assessments(path, condition="group", labels="melanoma")
    found = compare(read.ratings, read.labels, reference="mturk")
    RESULTS.joinpath("conditions.svg").write_text(svg(found), encoding="utf-8")
    whole = Assessed("ENHANCE", "ratings", len(read.ratings), read.n_images, 0.6, (), (), found, (), read.notes, {})
    text = "\n".join(f"## {s.title}\n\n{_table(s.rows)}\n" + "".join(f"- {line}\n" for line in s.lines)
                     for s in showing.sections(whole)[2:])  # fmt: skip
    RESULTS.joinpath("conditions.md").write_text("# ENHANCE's crowd against its students\n\n" + text, encoding="utf-8")


def _table(rows) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
