"""From a dataset to a ranked answer: candidates that somebody ran, what to expect of each here, and why."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from statistics import mean

import numpy as np

from metamed.dataset import Dataset, Kind
from metamed.ensembles import source_ensemble
from metamed.errors import EmptyStore, NotApplicable, ReadError, UnknownName
from metamed.measures import PRIMARY
from metamed.metafeatures import extract
from metamed.metalearner import SHIPPED, VERSION, MetaLearner
from metamed.recommend import assessments, bags, caution, reference, segmentation
from metamed.recommend.costs import Costs, parse_minutes, side_of
from metamed.recommend.wishes import Wishes, licences
from metamed.records import TEST_SHARE, Candidate, Recommendation, Setup, content_id
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.store.shipped import cache_folder

Z90 = 1.645  # normal quantile of a 90 % interval
# An area under the ROC curve by chance, and the one from which on a source needs no others: over 17 datasets an
# ensemble of three gained 0.031 on the best of them where that was below, 0.002 elsewhere (docs/choosing-a-source.md).
CHANCE, SOLVED = 0.5, 0.98
SAME = 0.5  # share of known images from which on a dataset is taken for the known one, runs and all


def recommend(
    dataset: Dataset,
    store: Store | None = None,
    *,
    kind: Kind | None = None,
    top: int = 5,
    budget: str | float | None = None,
    device: str | None = None,
    licence: str | None = None,
    as_unknown: bool = False,
    max_samples: int = 5000,
    seed: int = 0,
    explain: bool = False,
    label_kind: Iterable[str] = (),
    reference_run: Store | None = None,
    progress: Callable | None = None,
) -> Recommendation:
    """The `top` setups most likely to work on a dataset, each with score, 90 % interval, cost and evidence.

    store: evidence; the user's store united with what ships by default. budget: minutes, or "30m", "2h". device: cpu
    or cuda, the one that budget and cost are about. licence: "commercial" leaves out sources that forbid it or say
    nothing. as_unknown: forget every dataset of its family, and all that was learned from them. explain: also say what
    moved each candidate. label_kind: of segmentations, what is to be outlined, e.g. "tumour" or "liver=organ".
    reference_run: a store; one short run on the dataset (within the budget, else five minutes) is made first, kept
    there, and moves all scores. Raises NotApplicable where nothing can be learned from the data or nothing fits the
    wishes, EmptyStore without evidence.
    """
    wishes = Wishes(None if budget is None else parse_minutes(budget), device, licence)
    store = Store.united() if store is None else store
    data = as_kind(dataset, kind)
    kind = kind or data.kind  # images alone can be of a kind that they do not show
    n_train, procedure = caution.training_size(data, kind)
    known = store.known(data)
    family = {data.family, *(store.dataset(digest).family for digest, _, _ in known)}
    if as_unknown:
        store, known = forget(store, family), []
    vector = extract(data, max_samples=max_samples, seed=seed)
    labels, of_labels = segmentation.labels_of(data, kind, label_kind, seed=seed)
    if reference_run is not None:
        made = reference.reference_run(data, kind, store, reference_run, n_train, most=wishes.budget, seed=seed,
                                       progress=progress)  # fmt: skip
        store = reference.with_run(store, made, data, vector, reference_run)
        known = store.known(data)
    evidence = Evidence.of(store, kind)
    learner, facts = learner_of(kind, store, evidence.rows, seed), DatasetFacts.of(data)
    asked = facts.words | vector | facts.numbers | of_labels
    own = evidence.own(store.dataset(known[0][0]), n_train) if known and known[0][2] >= SAME else {}
    told = {id: mean(row["score"] for row in rows) for id, rows in own.items()}
    setups = bags.possible(assessments.possible(evidence.setups, data), data)
    candidates = learner.predict(asked, setups, store, told=told)
    candidates = with_own_runs(candidates, own, evidence.seed_sd(), data, kind, store)
    costs = Costs(kind, store)
    candidates = [replace(c, cost=costs.minutes(c.setup, n_train, side_of(data), data.n_samples)) for c in candidates]
    candidates, notes = wishes.keep(_allowed(candidates, store, family), store)
    ranking = tuple(sorted(candidates, key=_order))[:top]
    near = caution.experience(vector, evidence.vectors)
    sources, how = weigh_sources(candidates, data, store)
    used = dict.fromkeys([*(name for c in ranking for name in c.setup.sources), *(name for name, _ in sources)])
    explanation = {
        "seed": seed, "seed_sd": evidence.seed_sd(), "digest": data.digest, "procedure": evidence.protocol(procedure),
        "n_train": n_train, "why": _why(ranking, near, evidence, known, own), "nearest": near.nearest,
        "distance_limit": near.limit, "known": known, "licences": licences(used, store),
    }  # fmt: skip
    if kind == "classification":
        measured = assessments.measured(family if as_unknown else ())
        explanation["assessments"] = assessments.advice(data, measured)
    if kind == "mil":
        explanation |= bags.explained(data, ranking)
    if labels:

        def ask(facts: Mapping, reached: Mapping[str, float]) -> Candidate:
            return learner.predict(asked | facts, [ranking[0].setup], store, told=reached)[0]

        explanation |= segmentation.explained(data, labels, ranking, store, n_train, [*chain(*own.values())], ask)
    if explain:
        explanation["moved"] = learner.explain(asked, [c.setup for c in ranking], store)
        explanation["nearest_runs"] = evidence.best_runs([name for name, _ in near.nearest])
    assumptions = (*data.assumptions, *notes, *_cost_notes(ranking, device), *how)
    warnings = (*_distance_warnings(near), *segmentation.warnings_of(data, labels), *caution.warnings_of(data))
    return Recommendation(data.name, kind, PRIMARY[kind], ranking, sources, vector, learner.basis,
                          caution.facts_line(data, kind), assumptions, warnings, explanation)  # fmt: skip


# ---- the dataset, seen as a kind


def as_kind(dataset: Dataset, kind: Kind | None) -> Dataset:
    """The dataset without what makes it another kind. Raises NotApplicable if it lacks what the kind needs."""
    if kind in (None, dataset.kind):
        return dataset
    plain = dataset if dataset.bags is None else replace(dataset, bags=None, target=dataset.instance_target,
                                                         split=None, groups=None)  # fmt: skip
    seen = {"classification": lambda: replace(plain, masks=None),
            "segmentation": lambda: replace(plain, target=None),
            "similarity": lambda: replace(plain, target=None, masks=None),
            "mil": lambda: dataset}  # fmt: skip
    if kind not in seen:
        raise UnknownName("kind", kind, seen)
    view = seen[kind]()
    lacking = {"classification": view.target is None, "segmentation": len(view.images.shape) < 4,
               "similarity": view.triplets is None, "mil": view.bags is None}[kind]  # fmt: skip
    if lacking:
        need = {"classification": "target", "segmentation": "images", "similarity": "triplets", "mil": "bags"}[kind]
        raise NotApplicable(f"{dataset.name} cannot be seen as {kind}: it has no {need}. It is {dataset.kind}")
    return view


# ---- learner and evidence


def learner_of(kind: Kind, store: Store, rows: list[dict], seed: int = 0) -> MetaLearner:
    """The fitted learner of this evidence: the one that ships, one kept from an earlier call, or one fitted and kept.

    Kept in $METAMED_CACHE_DIR, else the user's cache folder. The learner itself checks that it fits the evidence.
    """
    known = [(row["evidence"], str(row["score"]), row["dataset"], row["family"]) for row in rows]
    path = cache_folder() / "learner" / f"{kind}-{content_id('learner', VERSION, seed, known)}.json"
    if path.exists():
        with suppress(ReadError):
            return MetaLearner.read(path)
    learner, shipped = MetaLearner.load(kind, store, seed=seed), SHIPPED / f"{kind}.json"
    if not shipped.exists() or MetaLearner.read(shipped).evidence != learner.evidence:
        with suppress(OSError):  # a folder that cannot be written costs time at the next call, nothing else
            learner.save(path)
    return learner


@dataclass(frozen=True)
class Evidence:
    """What was ever run or published of a kind with its measure.

    rows: as `Store.example_rows`. setups: those that somebody ran, and no others. vectors: datasets with own runs,
    digest -> (name, family, meta-features).
    """

    rows: list[dict]
    setups: list[Setup]
    vectors: dict[str, tuple[str, str, dict[str, float]]]

    @classmethod
    def of(cls, store: Store, kind: Kind) -> Evidence:
        """Raises EmptyStore for a store without any evidence, NotApplicable for one without any of that kind."""
        if len(store) == 0:
            raise EmptyStore("the store holds no runs and no published results; metamed store import adds some")
        rows = store.example_rows(kind, PRIMARY[kind])
        if not rows:
            raise NotApplicable(f"there is no evidence for {kind} yet: no run with {PRIMARY[kind]} in the store")
        ran = {row["setup"] for row in rows}
        described, vectors = {f.digest: f for f in store.records("dataset")}, store.vectors()
        own = {row["dataset"] for row in rows if row["study"] == "metamed"}
        known = {d: (described[d].name, described[d].family, vectors[d]) for d in sorted(own & set(vectors))}
        return cls(rows, [s for s in store.records("setup") if s.id in ran], known)

    def own(self, facts: DatasetFacts, n_train: int) -> dict[str, list[dict]]:
        """Runs on a dataset by setup id: those that learned from about as many samples as there are to learn from now,
        the most if in doubt, for only they compare."""
        rows = [r for r in self.rows if r["study"] == "metamed" and r["dataset"] == facts.digest]
        asked, all_of_it = n_train / (1 - TEST_SHARE), (1 - TEST_SHARE) * facts.n_samples  # validation included
        sizes = sorted({_size(r["protocol"]) for r in rows}, reverse=True)
        nearest = min(sizes, key=lambda size: abs(math.log(min(size, all_of_it) / asked)), default=0)
        found = defaultdict(list)
        for row in rows:
            if _size(row["protocol"]) == nearest:
                found[row["setup"]].append(row)
        return dict(found)

    def protocol(self, procedure: str) -> str:
        """What predicted scores stand for: our procedure with the samples that runs got, or the papers' own."""
        sizes = sorted({_size(r["protocol"]) for r in self.rows if r["study"] == "metamed"})
        if not sizes:
            return "the papers' own protocols: nothing was run here yet"
        limits = [f"{size:.0f}" for size in sizes if math.isfinite(size)]
        return procedure + (f", runs with at most {limits[-1]} labelled samples" if len(limits) == len(sizes) else "")

    def best_runs(self, datasets: Iterable[str], most: int = 3) -> list[str]:
        """One line a dataset: its best setups here, each with its mean score and the id of a run."""
        labels, lines = {s.id: s.label for s in self.setups}, []
        for name in datasets:
            scores = defaultdict(list)
            for row in self.rows:
                if row["study"] == "metamed" and row["name"] == name:
                    scores[row["setup"]].append((row["score"], row["evidence"]))
            ranked = sorted(((mean(s for s, _ in v), v[0][1], k) for k, v in scores.items()), reverse=True)[:most]
            best = "; ".join(f"{labels[setup]} {score:.3f} (run {run[:8]})" for score, run, setup in ranked)
            lines.append(f"{name}: {best}")
        return lines

    def seed_sd(self) -> float:
        """Standard deviation of a score between seeds, pooled over all that was repeated; NaN without repeats."""
        groups = defaultdict(list)
        for row in self.rows:
            if row["study"] == "metamed":
                groups[row["dataset"], row["protocol"], row["setup"]].append(row["score"])
        repeated = [np.array(scores) for scores in groups.values() if len(scores) > 1]
        freedom = sum(len(s) - 1 for s in repeated)
        return math.sqrt(sum(((s - s.mean()) ** 2).sum() for s in repeated) / freedom) if freedom else math.nan

    def places(self, setup: Setup) -> tuple[float, float, int]:
        """(mean rank, mean number of setups ranked, number of rankings) over all that a setup was compared in."""
        tables = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            tables[row["study"], row["protocol"], row["dataset"], row["target"]][row["setup"]].append(row["score"])
        ranks, sizes = [], []
        for scores in tables.values():
            if setup.id in scores and len(scores) > 1:
                means = {k: float(np.mean(v)) for k, v in scores.items()}
                ranks.append(1 + sum(m > means[setup.id] for m in means.values()))
                sizes.append(len(means))
        return (float(np.mean(ranks)), float(np.mean(sizes)), len(ranks)) if ranks else (math.nan, math.nan, 0)


def _size(protocol: str) -> float:
    """Labelled samples that a protocol such as "holdout, n=600" allows."""
    match = re.search(r"n=(\d+)", protocol)
    return float(match[1]) if match else math.inf


def forget(store: Store, families: set[str]) -> Store:
    """A copy of the evidence without some families of datasets: nothing that was run on them, or learned from them."""
    gone = [f for f in store.records("dataset") if f.family in families]
    names, digests = {f.name for f in gone}, {f.digest for f in gone}
    tasks = {t.id for t in store.records("task") if t.digest in digests or t.dataset in names}
    rest = Store.memory()
    rest.add_all(f for f in store.records("dataset") if f.digest not in digests)
    rest.add_all(s for s in store.records("source") if not names & {s.name, *s.corpus})
    rest.add_all(store.records("setup"))
    rest.add_all(t for t in store.records("task") if t.id not in tasks)
    rest.add_all(r for r in store.records("run") if r.task not in tasks)
    rest.add_all(p for p in store.records("published") if p.dataset not in names)
    for digest, values in store.vectors().items():
        if digest not in digests:
            rest.add_metafeatures(digest, values)
    return rest


def with_own_runs(
    candidates: list[Candidate], own: dict[str, list[dict]], seed_sd: float, dataset: Dataset, kind: Kind, store: Store,
) -> list[Candidate]:  # fmt: skip
    """Candidates with what setups reached on this very dataset in place of predictions.

    Their mean score, with the interval of one more run on one more test part; what was learned from them of all other
    setups is in the predictions already.
    """
    out = []
    for c in candidates:
        if rows := own.get(c.setup.id):
            score = mean(row["score"] for row in rows)
            if kind == "segmentation":
                sampling = segmentation.sampling_variance(score, rows, dataset, store)
            else:
                sampling = _sampling_variance(score, dataset)
            variance = np.nan_to_num(seed_sd) ** 2 * (1 + 1 / len(rows)) + sampling
            half = Z90 * math.sqrt(variance)
            c = replace(c, score=score, low=score - half, high=score + half,
                        evidence=tuple(row["evidence"] for row in rows))  # fmt: skip
        out.append(_within(c))
    return out


def _sampling_variance(score: float, dataset: Dataset) -> float:
    """Variance of an area under the ROC curve over test parts of a fifth of the samples (Hanley & McNeil, 1982).

    One class of mean size against the rest; for several classes their errors are taken as fully correlated, which
    makes it an upper bound. Also used for the accuracy of triplets.
    """
    n = max(len(dataset.labelled) or dataset.n_samples, 10) / 5
    positive = max(n / max(dataset.n_classes, 2), 1)
    negative = max(n - positive, 1)
    q1, q2 = score / (2 - score), 2 * score**2 / (1 + score)
    spread = (positive - 1) * (q1 - score**2) + (negative - 1) * (q2 - score**2)
    return (score * (1 - score) + spread) / (positive * negative)


def _within(c: Candidate) -> Candidate:
    """All measures that are recommended by lie in 0-1, and so do their expectations."""
    score, low, high = (v if math.isnan(v) else min(max(v, 0.0), 1.0) for v in (c.score, c.low, c.high))
    return replace(c, score=score, low=low, high=high)


# ---- order, sources, words


def _allowed(candidates: list[Candidate], store: Store, family: set[str]) -> list[Candidate]:
    """Without sources that learned from the dataset's own family: what they reach would be memory, not transfer."""
    sisters = {f.name for f in store.records("dataset") if f.family in family} | family
    learned = {s.name for s in store.records("source") if sisters & {s.name, *s.corpus}} | sisters
    return [c for c in candidates if not learned & set(c.setup.sources)]


def _order(c: Candidate) -> tuple:
    """What can be run here comes first, then the score; what has none keeps the learner's order behind."""
    return (not c.runnable, math.isnan(c.score), 0.0 if math.isnan(c.score) else -c.score)


def weigh_sources(
    candidates: list[Candidate], data: Dataset, store: Store, most: int = 5
) -> tuple[tuple[tuple[str, float], ...], list[str]]:
    """The best sources with their weights in an ensemble, which sum to 1, and one line on how they were weighed; the
    best one alone where no ensemble is known to pay.

    Chosen on the validation predictions of this dataset's own runs where the store has them; else, of images with
    classes, the best single sources in proportion to how far above chance each is predicted to reach.
    """
    if found := source_ensemble(data, store):
        weights, ensemble = found
        if ensemble.one_is_enough:
            weights = {store.get(store.get(ensemble.single[0]).setup).sources[0]: 1.0}
        enough = "; one source is enough: an ensemble gains nothing there" if ensemble.one_is_enough else ""
        return tuple(weights.items()), [f"sources were weighed on the validation predictions of stored runs{enough}"]
    best: dict[str, float] = {}
    for c in candidates:
        if len(c.setup.sources) == 1 and c.runnable and math.isfinite(c.score):
            best[c.setup.sources[0]] = max(best.get(c.setup.sources[0], 0.0), c.score)
    first = sorted(best.items(), key=lambda item: -item[1])[:most]
    if len(first) < 2 or data.kind != "classification":  # ensembles of other kinds were never measured
        return tuple((name, 1.0) for name, _ in first[:1]), []
    if first[0][1] >= SOLVED:
        return ((first[0][0], 1.0),), [f"one source is enough: it is expected to reach {first[0][1]:.3f}"]
    above = [(name, score - CHANCE) for name, score in first if score > CHANCE] or [(name, 1.0) for name, _ in first]
    total = sum(score for _, score in above)
    how = "weights of sources are in proportion to how far above chance they are predicted"
    return tuple((name, score / total) for name, score in above), [how]


def _why(ranking, near: caution.Experience, evidence: Evidence, known: list, own: dict[str, list]) -> list[str]:
    """Three lines at most: what it is like, how the first one did elsewhere, what is known of this very dataset."""
    lines = []
    if known:
        digest, name, share = known[0]
        used = f"{sum(map(len, own.values()))} runs on it are used" if share >= SAME else "too few to use its runs"
        lines.append(f"shares {share:.0%} of its images with {name}: {used}")
    if near.nearest:
        lines.append("nearest known datasets: " + ", ".join(f"{n} (distance {d:.2f})" for n, d in near.nearest))
    if ranking:
        rank, of, n = evidence.places(ranking[0].setup)
        if n:
            lines.append(f"mean rank of the first one: {rank:.1f} of {of:.0f}, over {n} comparisons in the evidence")
    return lines


def _distance_warnings(near: caution.Experience) -> list[str]:
    if near.outside:
        name, distance = near.nearest[0]
        return [f"outside my experience: the nearest known dataset, {name}, is {distance:.2f} away, farther than 95 % "
                f"of the known ones are from theirs ({near.limit:.2f})"]  # fmt: skip
    if math.isnan(near.limit):
        return ["fewer than three known datasets have meta-features: whether this one is like them cannot be said"]
    return []


def _cost_notes(ranking: tuple[Candidate, ...], device: str | None) -> list[str]:
    notes = ["CPU minutes are core-minutes, scaled from stored runs to the samples and pixels here"]
    if not any("cpu" in c.cost for c in ranking):
        notes = ["none of these was run here yet: CPU minutes are unknown"]
    if device == "cuda" and not any("cuda" in c.cost for c in ranking):
        notes.append("no run on a GPU is in the evidence: GPU minutes are unknown")
    return notes
