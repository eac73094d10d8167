"""Leave-one-family-out exams of recommenders, always beside the baselines, and what is measured in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from metamed.errors import NotApplicable
from metamed.exams.scales import design, fact_distance, plain_list, weighted_mean
from metamed.exams.tables import Table

DRAWS, BOOTSTRAP, NEIGHBOURS, SVR_ROWS = 50, 2000, 3, 2000
MEASURES = ("tau", "nreg1", "regret1", "regret3", "mae", "coverage")


@dataclass(frozen=True, eq=False)
class Prediction:
    """An answer for the datasets of a target table.

    order: (n, m), higher comes first; (draws, n, m) is averaged over draws. score, low, high: expected score with
    its 90 % interval, (n, m) in the table's measure, None where the ranker gives no figure. basis: one line on how.
    """

    order: np.ndarray
    score: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    basis: str = ""


Ranker = Callable[[Table, Table], Prediction]


@dataclass(frozen=True, eq=False)
class Exam:
    """The marks of every ranker on one table: ranker -> measure -> one value per judged dataset, (n,)."""

    name: str
    datasets: tuple[str, ...]
    families: tuple[str, ...]
    items: tuple[str, ...]
    marks: dict[str, dict[str, np.ndarray]]
    basis: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was done to the figures, see Table.notes

    def by_family(self, ranker: str, measure: str) -> np.ndarray:
        """Means inside each family, in the order of first appearance."""
        values, families = self.marks[ranker][measure], np.array(self.families, dtype=object)
        return np.array([_mean(values[families == f]) for f in dict.fromkeys(self.families)])

    def mean(self, ranker: str, measure: str) -> float:
        return _mean(self.by_family(ranker, measure))

    def difference(self, ranker: str, measure: str, against: str = "prior_list") -> np.ndarray:
        """Paired difference to another ranker, one value per family."""
        return self.by_family(ranker, measure) - self.by_family(against, measure)


# --- what is measured, for one dataset ---


def weighted_tau(truth: np.ndarray, order: np.ndarray) -> float:
    """Weighted Kendall tau between true scores and predicted order values (Vigna, 2015), -1 to 1; 0 if all are tied."""
    from scipy.stats import weightedtau

    value = weightedtau(truth, order).statistic
    return float(value) if np.isfinite(value) else 0.0


def regret(truth: np.ndarray, order: np.ndarray, k: int = 1) -> float:
    """Best score minus the best score among the first k; of ties the earlier item comes first."""
    return float(truth.max() - truth[np.argsort(-order, kind="stable")[:k]].max())


def marks_of(truth: np.ndarray, order: np.ndarray, score, low, high) -> dict[str, float]:
    """All measures of one answer for one dataset. truth: (m,); order: (m,) or (draws, m); NaN scores are skipped."""
    draws = np.atleast_2d(order)
    spread = float(np.ptp(truth))
    regrets = [float(np.mean([regret(truth, o, k) for o in draws])) for k in (1, 3)]
    tau = float(np.mean([weighted_tau(truth, o) for o in draws]))
    known = np.isfinite(score) if score is not None else np.zeros(len(truth), bool)
    inside = (low <= truth) & (truth <= high) if low is not None else None
    return {
        "tau": tau,
        "nreg1": regrets[0] / spread if spread else 0.0,
        "regret1": regrets[0],
        "regret3": regrets[1],
        "mae": float(np.abs(score - truth)[known].mean()) if known.any() else np.nan,
        "coverage": float(inside[known].mean()) if known.any() and inside is not None else np.nan,
    }


# --- baselines ---


def prior_list(train: Table, target: Table) -> Prediction:
    """Average rank over the other datasets as `plain_list` has it; the expected score is the item's mean."""
    scores = weighted_mean(train.scores, np.ones(len(train.datasets)))
    return Prediction(plain_list(train, target), np.tile(scores, (len(target.datasets), 1)))


def prior_list_modality(train: Table, target: Table) -> Prediction:
    """The prior list over the datasets of the same modality; the plain one where there are none."""
    own, modality = target.facts.get("modality"), train.facts.get("modality")
    parts = []
    for i in range(len(target.datasets)):
        same = modality == own[i] if own is not None and own[i] else np.zeros(len(train.datasets), bool)
        parts.append(prior_list(train.rows(same) if same.any() else train, target.rows([i])))
    return Prediction(np.concatenate([p.order for p in parts]), np.concatenate([p.score for p in parts]))


def knn(train: Table, target: Table) -> Prediction:
    """Mean of the nearest datasets by standardised facts (k = 3); the prior list where no facts are known."""
    if not train.facts:
        return prior_list(train, target)
    nearest = np.argsort(fact_distance(train.facts, target.facts), axis=1, kind="stable")[:, :NEIGHBOURS]
    answers = [prior_list(train.rows(near), target.rows([i])) for i, near in enumerate(nearest)]
    return Prediction(np.concatenate([a.order for a in answers]), np.concatenate([a.score for a in answers]))


def svr(train: Table, target: Table) -> Prediction:
    """Support vector regression of the raw score on facts and item; the prior list where no facts are known.

    Of more than 2000 scores a fixed sample is learned from. Items are dummies of weight 3, about as much as all facts
    together; the kernel is made of both parts, so that no row has to hold a column for every item.
    """
    from sklearn.svm import SVR

    if not train.facts:
        return prior_list(train, target)
    known, asked = design(train.facts, target.facts)
    rows, columns = np.nonzero(np.isfinite(train.scores))
    if len(rows) > SVR_ROWS:
        some = np.sort(np.random.default_rng(0).permutation(len(rows))[:SVR_ROWS])
        rows, columns = rows[some], columns[some]
    y, facts, m = train.scores[rows, columns], known[rows], len(train.items)
    mean = np.concatenate([facts.mean(0), 3 * np.bincount(columns, minlength=m) / len(y)])
    variance = ((facts**2).sum(1).mean() + 9) / len(mean) - mean.mean() ** 2
    gamma = 1 / (len(mean) * variance)  # as scikit-learn's "scale"
    model = SVR(kernel="precomputed", epsilon=0.1 * y.std() + 1e-9)
    model.fit(_near(facts, facts, gamma) * _alike(columns, columns, gamma), (y - y.mean()) / (y.std() or 1))
    support = model.support_
    weighted = _near(asked, facts[support], gamma) * model.dual_coef_[0]
    score = weighted @ _alike(columns[support], np.arange(m), gamma) + model.intercept_[0]
    score = score * y.std() + y.mean()
    return Prediction(score, score)


def _near(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
    """Gaussian kernel of rows, (len(a), len(b))."""
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.exp(-gamma * np.maximum(square, 0))


def _alike(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
    """Gaussian kernel of the items' dummies, whose squared distance is 18 for different ones."""
    return np.where(a[:, None] == b, 1.0, np.exp(-18 * gamma))


def shuffler(seed: int) -> Ranker:
    """Random order: the mean over 50 draws, the same ones for the same seed."""

    def random(train: Table, target: Table) -> Prediction:
        shape = (DRAWS, len(target.datasets), len(target.items))
        return Prediction(np.random.default_rng(seed).random(shape))

    return random


def hint_ranker(name: str) -> Ranker:
    """One published score or minus distance, alone; what it cannot rate comes last."""

    def hint(train: Table, target: Table) -> Prediction:
        values = target.hints[name]
        return Prediction(np.where(np.isfinite(values), values, np.nanmin(values, initial=0.0) - 1))

    return hint


BASELINES: dict[str, Ranker] = {
    "prior_list": prior_list,
    "prior_list_modality": prior_list_modality,
    "knn": knn,
    "svr": svr,
}


# --- the exam ---


def judged(table: Table) -> np.ndarray:
    """Mask of the datasets that are asked about: two items or more, and a hint where the table has hints."""
    enough = np.isfinite(table.scores).sum(1) > 1
    if not table.hints:
        return enough
    hinted = np.any([np.isfinite(h).any(1) for h in table.hints.values()], axis=0)
    return enough & hinted


def exam(
    table: Table, rankers: dict[str, Ranker], *, shown: Sequence[str] = (), seed: int = 0, beside: dict | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exam:  # fmt: skip
    """Leave one family out: every ranker learns from the others and answers for it, the family's scores hidden.

    shown: items whose scores on the target are told, as if they had been run there; errors are those of the others.
    beside: rankers to compare with instead of all baselines. progress: called with (families done, families).
    """
    folds = [fold for fold in table.family_folds() if (fold & judged(table)).any()]
    if len(folds) < 2:
        raise NotApplicable(f"{table.name}: {len(folds)} family of datasets; an exam needs two. See the family column.")
    pairs = [(table.rows(~fold), table.rows(fold & judged(table))) for fold in folds]
    return _examine(table, pairs, rankers, seed, shown, beside, progress)


def exam_across(train: Table, test: Table, rankers: dict[str, Ranker], *, seed: int = 0, progress=None) -> Exam:
    """Train on one table, judged on another that has items in common, without the families that they share."""
    common = [item for item in train.items if item in test.items]
    if len(common) < 2:
        raise NotApplicable(
            f"{train.name} and {test.name} have {len(common)} items in common; an order needs two. "
            f"--items says which columns name an item ('{train.items[0]}', '{test.items[0]}')"
        )
    train = train.columns([train.items.index(i) for i in common]).knowing(test.facts)
    test = test.columns([test.items.index(i) for i in common]).knowing(train.facts)
    asked = test.rows(judged(test))
    pairs = []
    for fold in asked.family_folds():
        family = asked.families[int(np.argmax(fold))]
        names = {family, *np.array(asked.datasets, dtype=object)[fold]}
        others = [f not in names and d not in names for f, d in zip(train.families, train.datasets, strict=True)]
        pairs.append((train.rows(np.array(others)), asked.rows(fold)))
    return _examine(test, pairs, rankers, seed, progress=progress)


def _examine(
    table: Table, pairs: Sequence[tuple[Table, Table]], rankers, seed, shown=(), beside=None, progress=None
) -> Exam:
    everyone = rankers | (BASELINES | {"random": shuffler(seed)} if beside is None else beside)
    taken = {*everyone, "oracle"}
    hints = table.hints if beside is None else {}
    everyone |= {f"{n} (published)" if n in taken else n: hint_ranker(n) for n in hints}
    marks: dict[str, dict[str, list]] = {name: {m: [] for m in MEASURES} for name in [*everyone, "oracle"]}
    basis: dict[str, list[str]] = {}
    for done, (train, target) in enumerate(pairs, 1):
        hidden = target.hidden(shown)
        answers = {name: ranker(train, hidden) for name, ranker in everyone.items()}
        for name, answer in (answers | {"oracle": Prediction(target.scores, target.scores)}).items():
            _mark(marks[name], target.scores, answer, np.isfinite(hidden.scores))
            basis.setdefault(name, []).append(answer.basis)
        if progress is not None:
            progress(done, len(pairs))
    datasets = tuple(d for _, target in pairs for d in target.datasets)
    families = tuple(f for _, target in pairs for f in target.families)
    arrays = {name: {m: np.array(v) for m, v in values.items()} for name, values in marks.items()}
    said = {n: tuple(b) for n, b in basis.items() if any(b)}
    return Exam(table.name, datasets, families, table.items, arrays, said, table.notes)


def _mark(marks: dict[str, list], scores: np.ndarray, answer: Prediction, told: np.ndarray) -> None:
    for i, truth in enumerate(scores):
        there = np.isfinite(truth)
        figures = [
            None if p is None else np.where(told[i], np.nan, p[i])[there]
            for p in (answer.score, answer.low, answer.high)
        ]
        for name, value in marks_of(truth[there], answer.order[..., i, there], *figures).items():
            marks[name].append(value)


# --- intervals and output ---


def interval(values: np.ndarray, *, seed: int = 0, statistic: Callable = np.mean) -> tuple[float, float] | None:
    """95 % bootstrap interval over families (2000 draws); None below three families. values: (families, ...)."""
    values = values[np.isfinite(values.reshape(len(values), -1)).all(1)]
    if len(values) < 3:
        return None
    index = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAP, len(values)))
    drawn = statistic(values[index], axis=1)
    drawn = drawn[np.isfinite(drawn)]
    return tuple(map(float, np.percentile(drawn, [2.5, 97.5]))) if len(drawn) else None


def _gap(pairs: np.ndarray, axis: int = 0) -> np.ndarray:
    """1 - regret / regret of the prior list, of the means; NaN where the list has no regret."""
    own, reference = np.moveaxis(pairs.mean(axis), -1, 0)
    return np.where(reference > 0, 1 - own / np.where(reference > 0, reference, 1), np.nan)


def as_rows(result: Exam, *, seed: int = 0) -> list[dict]:
    """One dict per ranker with the fields of `as_json`; None where a figure cannot be computed."""
    rows = []
    for name in result.marks:
        means = {m: result.mean(name, m) for m in MEASURES}
        regrets = np.stack([result.by_family(name, "regret1"), result.by_family("prior_list", "regret1")], axis=1)
        gaps = {"gap_closed": float(_gap(regrets)), "gap_closed_ci": interval(regrets, seed=seed, statistic=_gap)}
        apart = {f"d{m}_ci": interval(result.difference(name, m), seed=seed) for m in ("tau", "nreg1")}
        row = {"ranker": name, **means, **gaps, **apart}
        keys = (
            "ranker",
            "tau",
            "nreg1",
            "regret1",
            "regret3",
            "gap_closed",
            "gap_closed_ci",
            "dtau_ci",
            "dnreg1_ci",
            "mae",
            "coverage",
        )
        rows.append({key: _plain(row[key]) for key in keys})
    return rows


def as_json(results: Sequence[Exam], *, seed: int = 0) -> dict:
    """{"exams": [{"name", "datasets", "items", "rows": [...]}]}: plain numbers, null where not computable."""
    return {
        "exams": [
            {"name": r.name, "datasets": len(r.datasets), "items": len(r.items), "rows": as_rows(r, seed=seed)}
            for r in results
        ]
    }


def as_markdown(results: Sequence[Exam], *, seed: int = 0) -> str:
    """One table per exam, in Markdown that also reads as text."""
    head = "| ranker | tau | to the list | nreg@1 | to the list | regret@1 | regret@3 | gap closed | MAE | coverage |"
    parts = []
    for result in results:
        families = len(dict.fromkeys(result.families))
        title = f"### {result.name}: {len(result.datasets)} datasets in {families} families, {len(result.items)} items"
        lines = [_line(row) for row in as_rows(result, seed=seed)]
        parts.append("\n".join([title, "", *[f"{note}\n" for note in result.notes], head, "|---" * 10 + "|", *lines]))
    return "\n\n".join(parts) + "\n"


def _line(row: dict) -> str:
    def figure(key, digits=3):
        return "–" if row[key] is None else f"{row[key]:.{digits}f}"

    def between(key):
        return "–" if row[key] is None else "[{:+.3f}, {:+.3f}]".format(*row[key])

    gap = figure("gap_closed", 2) + (
        "" if row["gap_closed_ci"] is None else " [{:.2f}, {:.2f}]".format(*row["gap_closed_ci"])
    )
    cells = [
        row["ranker"],
        figure("tau"),
        between("dtau_ci"),
        figure("nreg1"),
        between("dnreg1_ci"),
        figure("regret1", 4),
        figure("regret3", 4),
        gap,
        figure("mae"),
        figure("coverage"),
    ]
    return "| " + " | ".join(cells) + " |"


def pooled(
    results: Sequence[Exam], measure: str, ranker: str = "metamed", *, seed: int = 0
) -> tuple[float, tuple | None]:
    """Mean difference to the prior list over all families of several exams, with its interval.

    A family that occurs in several exams of one table counts once, with its mean.
    """
    families: dict[tuple, list[float]] = {}
    for result in results:
        for family, value in zip(dict.fromkeys(result.families), result.difference(ranker, measure), strict=True):
            families.setdefault((result.name.split()[0], family), []).append(value)
    values = np.array([np.mean(v) for v in families.values()])
    return float(values.mean()), interval(values, seed=seed)


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _plain(value):
    if isinstance(value, tuple):
        return [round(v, 6) for v in value]
    if isinstance(value, str) or value is None:
        return value
    return round(float(value), 6) if np.isfinite(value) else None
