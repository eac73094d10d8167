"""A stored run examined: its setup learned again and again on its task, and what that says of its instances."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import MetamedError, NotApplicable
from metamed.measures import binary_auc
from metamed.records import Run, Setup
from metamed.store import Store
from metamed.training.mil import Bags
from metamed.trust.judging import RESAMPLINGS, SEEDS, Fit, judge
from metamed.trust.known import Expectation, expected_auc
from metamed.trust.learning import PANEL, Learn, learner
from metamed.trust.measures import TRUST, Trust, measure, value_of


@dataclass(frozen=True)
class Examination:
    """What was examined and what came out. panel: `bag_consistency` of the other variants on the same bags, the measure
    that ranks models best. truth: the true AUC of the instances where the dataset knows their classes, else NaN; no
    measure looked at it."""

    setup: Setup
    n_train: int
    n_test: int
    n_instances: int
    found: tuple[Trust, ...]
    panel: dict[str, float]
    truth: float

    @property
    def values(self) -> dict[str, float]:
        return {t.measure: t.value for t in self.found}

    @property
    def expected(self) -> Expectation:
        """The AUC of the instances that models with such values had where the instances are known."""
        return expected_auc(self.values)


def examine(
    run: Run, dataset: Dataset, store: Store, *, resamplings: int = RESAMPLINGS, seeds: int = SEEDS,
    panel: tuple[str, ...] = PANEL, device: str = "auto",
) -> Examination:  # fmt: skip
    """How far the instances of a run's setup can be trusted, judged on the test bags of its task's first fold.

    panel: variants whose opinion is asked for too, where features are learned from. Raises MetamedError where the
    dataset is not the run's, NotApplicable where it has no bags.
    """
    setup, task = store.get(run.setup), store.get(run.task)
    if task.kind != "mil":
        raise NotApplicable(f"run {run.id[:12]} is of {task.kind}: only models of bags say something of instances")
    if task.digest != dataset.digest:
        raise MetamedError(f"{dataset.name} is not what run {run.id[:12]} was made on: {task.dataset}. Give that "
                           "dataset, read in the same way")  # fmt: skip
    bags, learn = learner(setup, dataset, store, device=device)
    train = np.sort(np.array(task.folds[0].train + task.folds[0].validation))
    test = np.array(task.folds[0].test)
    places = None if dataset.coordinates is None else [dataset.coordinates[bags.members(b)] for b in range(len(bags))]
    names = [name for name in panel if name != setup.method]
    others = _panel(names, dataset, bags, store, device)
    judged = judge(_learned(bags, learn, dataset), [bags[b] for b in range(len(bags))], dataset.target, train, test,
                   others=others, coordinates=places, resamplings=resamplings, seeds=seeds, seed=run.seed)  # fmt: skip
    truth = float("nan")
    if dataset.instance_target is not None:
        known = np.concatenate([dataset.instance_target[bags.members(b)] for b in test])
        truth = binary_auc(known[known >= 0] > 0, judged.scores[known >= 0])
    beside = {name: value_of("bag_consistency", replace(judged, scores=scores))
              for name, scores in zip(names, judged.others, strict=False)}  # fmt: skip
    found = tuple(measure(judged, seed=run.seed))
    return Examination(setup, len(train), len(test), len(judged.scores), found, beside, truth)


def as_dict(e: Examination) -> dict:
    """What `metamed trust --json` prints."""
    return {"setup": e.setup.label, "train_bags": e.n_train, "test_bags": e.n_test, "instances": e.n_instances,
            "measures": {t.measure: {"value": t.value, "low": t.low, "high": t.high} for t in e.found},
            "panel": e.panel, "expected_instance_auc": asdict(e.expected), "true_instance_auc": e.truth}  # fmt: skip


def as_text(e: Examination) -> str:
    """What `metamed trust` prints."""
    asked = f"{e.n_instances} instances of {e.n_test} others"
    lines = [f"{e.setup.label}: learned from {e.n_train} bags, asked about {asked}"]
    width = max(len(t.measure) for t in e.found)
    for t in e.found:
        interval = f"[{t.low:5.2f}, {t.high:5.2f}]" if np.isfinite(t.low) else " " * 14
        value = f"{t.value:5.2f} {interval}" if np.isfinite(t.value) else "    – " + " " * 14
        meaning, _, _ = TRUST[t.measure].description.partition(". ")
        lines.append(f"{t.measure:{width}}  {value}  {meaning}")
    if e.panel:
        others = ", ".join(f"{name} {v:.2f}" for name, v in sorted(e.panel.items(), key=lambda item: -item[1]))
        lines.append(f"bag_consistency of other variants on these bags: {others}")
    lines.append(e.expected.sentence)
    if np.isfinite(e.truth):
        lines.append(f"The instances' classes are known here: their true AUC is {e.truth:.3f}.")
    return "\n".join(lines)


def _panel(names: list[str], dataset: Dataset, bags: Bags, store: Store, device: str) -> list[Fit]:
    """The panel on the very features that the examined variant learns from; nobody where it learns from images."""
    if len(bags.shape) > 1:
        return []
    same = replace(dataset, images=bags.instances)
    return [_learned(*learner(Setup(name), same, store, device=device), dataset) for name in names]


def _learned(bags: Bags, learn: Learn, dataset: Dataset) -> Fit:
    return lambda train, seed: learn([bags[b] for b in train], dataset.target[train], seed)
