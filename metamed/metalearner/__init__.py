"""The meta-learner: prior list, weak corrections, trees on what they leave, and a gate that falls back to the list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from metamed.errors import NotApplicable, ReadError
from metamed.exams import Prediction, exam, prior_list
from metamed.exams.examples import is_own, table_keys, tables_from, vector_facts, vector_landmarks, vectors_of
from metamed.exams.scales import common_scale, fact_distance, family_weights, normal_scores, plain_list
from metamed.exams.tables import LOWER_IS_BETTER, Table
from metamed.measures import PRIMARY
from metamed.metalearner.correctors import KEEP, Base, base_of, matched
from metamed.metalearner.gate import company, gate, settled
from metamed.metalearner.levels import expected_scores, half_width, is_fraction
from metamed.metalearner.told import moved_by_runs
from metamed.metalearner.trees import contributions, evaluate, grow, out_of_fold
from metamed.records import Candidate, Setup, content_id

SHIPPED = Path(__file__).parent.parent / "data" / "learner"
NEAREST = 3  # datasets whose runs are shown as evidence
VERSION = 13  # raised by hand when the recipe moves: what was learned by another one is fitted again
SEEDS, FEWEST = 3, 5


@dataclass(frozen=True)
class Standing:
    """How a ranking did when each family of its own evidence was left out in turn, beside the prior list.

    datasets: how many were asked about. regret, list_regret: best score minus that of the first, mean over families.
    """

    datasets: int
    regret: float
    list_regret: float

    @classmethod
    def of(cls, table: Table) -> Standing | None:
        """The exam of `fit_predict` on a table; None where it has too few families for one."""
        try:
            held = exam(table, {"metamed": fit_predict}, beside={"prior_list": prior_list})
        except NotApplicable:
            return None
        figures = (round(held.mean(ranker, "regret1"), 6) for ranker in ("metamed", "prior_list"))
        return cls(len(dict.fromkeys(held.datasets)), *figures)

    def __str__(self) -> str:
        return (
            f"in leave-one-family-out exams on {self.datasets} datasets this ranking's regret is {self.regret:.3f} "
            f"(prior list {self.list_regret:.3f})"
        )


@dataclass(frozen=True)
class Fitted:
    """What answering needs beside the evidence itself: the trees, the gate and the error of expected scores.

    models: XGBoost's own JSON, one per seed. gain: inner tau above the list. error: half width of the 90 % interval.
    free: may another than the list's first come first, in company? exam: how it stood when its evidence was examined.
    """

    models: tuple[dict, ...]
    gain: float
    error: float
    families: int
    names: tuple[str, ...]
    free: bool = True
    exam: Standing | None = None

    @property
    def open(self) -> bool:
        """Is the learner used, or the list? Only what gained inside, on enough families, is used."""
        return self.gain > 0

    @property
    def basis(self) -> str:
        evidence = f"{self.families} families of datasets"
        if self.open:
            by = "facts and XGBoost" if self.models else "who ran each setup"
            return f"prior list corrected by {by} on {evidence}; {self.gain:+.3f} weighted tau inside"
        why = (
            "too few families"
            if self.families < FEWEST
            else f"corrections gained nothing inside ({self.gain:+.3f} tau)"
        )
        return f"prior list alone on {evidence}: {why}"


# --- fitting ---


def outcome(train: Table, base: Base) -> np.ndarray:
    """Scores on the scale on which `base` predicts them."""
    if base.kind == "source":
        return normal_scores(train.scores)
    return matched(common_scale(train.scores), family_weights(train.families, 1.0))


def crossfit(train: Table) -> Base:
    """The base for each training dataset, learned without its family: no row sees its own outcome."""
    parts = {}
    for fold in train.family_folds():
        base = base_of(train.rows(~fold), train.rows(fold).hidden())
        parts |= dict(zip(np.flatnonzero(fold), base.each(), strict=True))
    return Base.join([parts[i] for i in range(len(train.datasets))])


def _grow(base: Base, target: np.ndarray, weights: np.ndarray, seed: int) -> tuple[dict, ...]:
    """Trees on the departure from the base's anchor, where something was run."""
    there = np.isfinite(target)
    rows = np.broadcast_to(weights[:, None], there.shape)[there]
    return grow(base.features[there], (target - base.anchor)[there], rows, range(seed, seed + SEEDS))


def fit(train: Table, *, seed: int = 0, gated: bool = True) -> Fitted:
    """Learn trees on cross-fitted bases, decide the gate by leaving families out once more, and measure the error.

    As in stacking, the gate's trees do not see the family that they are tried on, but the bases of their training rows
    did: leaving it out there too would cost its square. gated: False leaves the gate open, which shows a leak sooner.
    Where neither facts nor hints tell datasets apart, nor descriptors make setups alike, trees could only mistake noise
    for merit: there are none.
    """
    folds, plain = train.family_folds(), list_only(train)
    if len(folds) < FEWEST:
        return plain
    base = crossfit(train)
    target, weights = outcome(train, base), family_weights(train.families, 0.5)
    models, order = (), base.order
    if train.facts or train.hints or any(len(set(c)) < len(c) for c in train.descriptors.values()):
        models = _grow(base, target, weights, seed)
        order = held_out(train, base, target, weights, seed) if gated else order
    gain, free = gate(train, base, order) if gated else (np.inf, True)
    return Fitted(models, gain, plain.error, len(folds), base.names, free)


def held_out(train: Table, base: Base, target: np.ndarray, weights: np.ndarray, seed: int) -> np.ndarray:
    """The corrected order of each dataset by trees that were grown without its family, (n, m)."""
    there = np.isfinite(target)
    rows = np.broadcast_to(weights[:, None], there.shape)[there]
    folds = [np.broadcast_to(fold[:, None], there.shape)[there] for fold in train.family_folds()]
    trees = np.zeros(there.shape)
    trees[there] = out_of_fold(
        base.features[there], (target - base.anchor)[there], rows, folds, range(seed, seed + SEEDS)
    )
    return base.order + base.share * trees


# --- answering: numpy alone ---


def corrected(base: Base, models: tuple[dict, ...]) -> np.ndarray:
    """The order value with the trees' part in it."""
    return base.order + base.share * evaluate(models, base.features)


def answer(fitted: Fitted, train: Table, target: Table) -> Prediction:
    """Order and expected scores for the target's datasets; the highest expected score goes to the first in order.

    Scores that `target` holds were reached there: they move the order and the expectations of what was not run.
    """
    order = plain_list(train, target)
    if fitted.open:
        plain = np.where(np.isneginf(target.scores), -np.inf, order)
        order = settled(corrected(base_of(train, target), fitted.models), plain, company(train, target) & fitted.free)
    order = _unseen_last(moved_by_runs(order, train, target), train)
    score = np.array([_in_order(o, s) for o, s in zip(order, expected_scores(train, target), strict=True)])
    shown = [i for i, known in zip(target.items, np.isfinite(target.scores).any(0), strict=True) if known]
    error = half_width(train, shown) if 0 < len(shown) < len(target.items) else fitted.error
    low, high = score - error, score + error
    if is_fraction(train.scores):
        low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return Prediction(order, score, low, high, fitted.basis)


def _unseen_last(order: np.ndarray, train: Table) -> np.ndarray:
    """Items that nobody ran stand behind all others, as in the list: nothing speaks for them."""
    seen = np.isfinite(train.scores).any(0)
    return np.where(seen | np.isneginf(order), order, np.min(order, where=~np.isneginf(order), initial=0.0) - 1)


def _in_order(order: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The same figures, handed out in the order of the items, so that list and figures never contradict."""
    out = np.empty_like(score)
    out[np.argsort(-order, kind="stable")] = np.sort(score)[::-1]
    return out


def fit_predict(train: Table, target: Table) -> Prediction:
    """The learner as a ranker: the very same for exams and for recommending."""
    return answer(fit(train), train, target)


def ungated(train: Table, target: Table) -> Prediction:
    """The learner as if its gate were always open: for controls, never for an answer."""
    return answer(fit(train, gated=False), train, target)


def list_only(train: Table, *, rated: bool = True) -> Fitted:
    """The prior list without a look at anything else; rated: with the error of expected scores."""
    folds = train.family_folds()
    error = half_width(train) if rated and len(folds) > 1 else float("nan")
    return Fitted((), 0.0, error, len(folds), ())


# --- the learner of a store ---


class MetaLearner:
    """Orders and rates the setups of one kind for a new dataset, from the runs and published figures of a store.

    Scores compare only within one protocol. So one table leads (own runs; the published table with the most families
    where there are none) and gives the expected scores; setups that only other tables know follow in the order of those
    tables' prior lists, without a figure. What is learned beside the evidence itself is trees, a gate and an error.
    """

    def __init__(self, kind: str, *, measure: str | None = None, seed: int = 0):
        self.kind, self.measure, self.seed = kind, measure or PRIMARY[kind], seed
        self.fitted: Fitted | None = None
        self.evidence = ""

    def fit(self, store) -> MetaLearner:
        """Learn from all evidence of the kind. NotApplicable where no two setups were compared on two sets."""
        leading = self._tables(store)[0][0]
        self.fitted = replace(fit(leading, seed=self.seed), exam=Standing.of(leading))
        self.evidence = _digest(leading)
        return self

    @property
    def basis(self) -> str:
        """One line: which learner answered, on what evidence, why, and how it stood in its exam."""
        if self.fitted is None:
            return "nothing is learned yet"
        return self.fitted.basis + ("" if self.fitted.exam is None else f"; {self.fitted.exam}")

    def predict(
        self, metafeatures: Mapping, setups: Iterable[Setup], store, *, told: Mapping[str, float] | None = None
    ) -> list[Candidate]:
        """Candidates for a dataset, best first: of the leading table with scores, then of each other table without.

        metafeatures: numbers by name, as `extract` gives; the words modality_group and label_kind are used where given.
        store: the evidence that was learned from. told: setup id -> score that it reached on this very dataset. A setup
        that nobody has run is left out.
        """
        tables, rows = self._tables(store)
        if self.fitted is None or self.evidence != _digest(tables[0]):
            self.fit(store)
        wanted, found, runs = {s.id: s for s in setups}, {}, _runs(rows)
        for table in tables:
            fitted = self.fitted if table is tables[0] else list_only(table, rated=False)
            asked = _asked(table, metafeatures, (told or {}) if is_own(table) else {})
            for candidate in self._candidates(table, fitted, asked, wanted, runs, table is tables[0]):
                found.setdefault(candidate.setup.id, candidate)
        return list(found.values())

    def explain(self, metafeatures: Mapping, setups: Iterable[Setup], store) -> dict[str, dict]:
        """Setup id -> what moved it: place in the list, correction, and the trees' contributions by feature."""
        table = self._tables(store)[0][0]
        base = base_of(table, _asked(table, metafeatures))
        sums = contributions(self.fitted.models, base.features[0])
        parts = base.share * sums
        return {
            s.id: self._moved(base, parts[j], j)
            for s in setups
            if s.id in table.items
            for j in [table.items.index(s.id)]
        }

    def _moved(self, base: Base, parts: np.ndarray, j: int) -> dict:
        trees = {n: round(float(v), 4) for n, v in zip(base.names, parts, strict=False) if abs(v) > 1e-4}
        start = float(np.nan_to_num(base.features[0, j, base.names.index("list")])) * (
            KEEP if base.kind == "source" else 1
        )
        correction = float(base.order[0, j] - start + parts.sum()) if self.fitted.open else 0.0
        return {"list": round(start, 4), "correction": round(correction, 4), "trees": trees if self.fitted.open else {}}

    def save(self, path: str | Path | None = None) -> Path:
        """Write what is learned as JSON; among the package's own data by default."""
        path = Path(path or SHIPPED / f"{self.kind}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"kind": self.kind, "measure": self.measure, "seed": self.seed, "evidence": self.evidence}
        path.write_text(
            json.dumps(state | {"fitted": asdict(self.fitted)}, separators=(",", ":")) + "\n", encoding="utf-8"
        )
        return path

    @classmethod
    def read(cls, path: str | Path) -> MetaLearner:
        """What `save` wrote. Raises ReadError for anything else."""
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            learner = cls(state["kind"], measure=state["measure"], seed=state["seed"])
            fitted = state["fitted"] | {
                "models": tuple(state["fitted"]["models"]),
                "names": tuple(state["fitted"]["names"]),
                "exam": state["fitted"]["exam"] and Standing(**state["fitted"]["exam"]),
            }
            learner.fitted, learner.evidence = Fitted(**fitted), state["evidence"]
        except (ValueError, KeyError, TypeError) as error:
            raise ReadError(f"{path}: not a learner that metamed saved ({error}). Fit it again.") from None
        return learner

    @classmethod
    def load(cls, kind: str, store, *, seed: int = 0) -> MetaLearner:
        """The learner that ships if it learned from this very evidence, else one fitted to it, once a process."""
        digest = _digest(cls(kind)._tables(store)[0][0])
        if (kind, digest, seed) not in _KNOWN:
            path = SHIPPED / f"{kind}.json"
            shipped = cls.read(path) if path.exists() else None
            same = shipped is not None and (shipped.evidence, shipped.seed) == (digest, seed)
            _KNOWN[kind, digest, seed] = shipped if same else cls(kind, seed=seed).fit(store)
        return _KNOWN[kind, digest, seed]

    def _tables(self, store) -> tuple[list[Table], list[dict]]:
        rows = store.example_rows(self.kind, self.measure)
        if not (_TABLES and _TABLES[0] is rows):
            _TABLES[:] = rows, tables_from(rows, vectors_of(store))
        return _TABLES[1], rows

    def _candidates(self, table, fitted, target, wanted, runs, leading) -> list[Candidate]:
        got = answer(fitted, table, target)
        near = dict.fromkeys(table.datasets[i] for i in np.argsort(_distances(table, target), kind="stable"))
        sign = -1 if np.nanmax(table.scores) <= 0 else 1
        study = "" if is_own(table) else table.name.rsplit(" ", 1)[0]
        note = f"published: {study}" if study else ""
        out = []
        for j in np.argsort(-got.order[0], kind="stable"):
            if (id := table.items[j]) in wanted:
                figures = [sign * float(v[0, j]) if leading else float("nan") for v in (got.score, got.low, got.high)]
                low, high = sorted(figures[1:])
                shown = [row for d in near for row in runs.get((table.name, d, id), ())][:NEAREST]
                out.append(Candidate(wanted[id], figures[0], low, high, tuple(r["evidence"] for r in shown),
                                     runnable=bool(shown[0]["runnable"]), note=note))  # fmt: skip
        return out


_KNOWN: dict[tuple[str, str, int], MetaLearner] = {}
_TABLES: list = []  # the rows that were made into tables last, and these


def _digest(table: Table) -> str:
    """Hash of all that is learned from, and of the recipe. Six digits of numbers: the last ones of a logarithm depend
    on the processor, and what ships should be known on all of them."""
    parts = (table.facts, table.descriptors, table.origins, table.landmarks)
    columns = [{n: [_text(v) for v in c] for n, c in part.items()} for part in parts]
    return content_id(
        VERSION,
        table.name,
        table.datasets,
        table.items,
        table.families,
        [[_text(v) for v in row] for row in table.scores],
        columns,
    )


def _text(value: object) -> str:
    """Numbers with six digits, words as they are."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _asked(table: Table, metafeatures: Mapping, told: Mapping[str, float] | None = None) -> Table:
    """The new dataset as a table of one row that may be asked for every item; facts that are unknown are left out.

    told: scores that items reached on it, by the table's measure.
    """
    facts = {n: c for n, c in vector_facts([metafeatures]).items() if c.dtype != object or c[0]}
    sign = -1 if LOWER_IS_BETTER.search(table.measure) else 1
    scores = np.array([[sign * (told or {}).get(item, np.nan) for item in table.items]])
    landmarks = vector_landmarks([metafeatures], table.measure)
    return Table(
        "asked", table.measure, ("asked",), table.items, scores, ("asked",), facts, table.descriptors, table.origins,
        landmarks=landmarks,
    )  # fmt: skip


def _distances(table: Table, target: Table) -> np.ndarray:
    return fact_distance(table.facts, target.facts)[0] if table.facts else np.zeros(len(table.datasets))


def _runs(rows: list[dict]) -> dict[tuple[str, str, str], list[dict]]:
    """(table, dataset, setup) -> the rows of its runs or figures."""
    found: dict[tuple[str, str, str], list[dict]] = {}
    for row in rows:
        for key in table_keys(row):
            found.setdefault((" ".join(key), row["dataset"], row["setup"]), []).append(row)
    return found
