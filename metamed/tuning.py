"""Tuning: a search by Optuna that starts from recommended setups; every completed trial is a run in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from metamed.dataset import Dataset
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import make_job, run_setup
from metamed.jobs import is_probe, settings_of
from metamed.measures import get_measure
from metamed.methods import Choice, Domain, Float, Int, get_method
from metamed.recommend import recommend
from metamed.records import Run, Scalar, Setup, Task
from metamed.store import Store
from metamed.store.traces import keep_trace
from metamed.tasks import make_task

FIXED = ("epochs", "image_size", "network")  # they buy score with time, or belong to the source: as recommended
STARTS = 3  # recommended setups that a search starts from
WARM_UP = 3  # epochs before a trial may be pruned


@dataclass(frozen=True)
class Branch:
    """A part of the search space: a method with a recipe and sources, and its settings that are not searched.

    With a source, whole numbers and choices of the method are its architecture: they stay as the source has them.
    """

    start: Setup

    @cached_property
    def space(self) -> dict[str, tuple[str, Domain, Scalar]]:
        """Setting -> (its name in the study, domain, default)."""
        found, probe = {}, is_probe(self.start)
        for name in filter(None, (self.start.method, self.start.recipe)):
            flow = get_method(name)
            structural = bool(self.start.sources) and not probe and flow.kind != "transfer"
            found |= {k: (f"{name}.{k}", d, flow.defaults[k]) for k, d in flow.space.items()
                      if not structural or isinstance(d, Float)}  # fmt: skip
        if not probe:
            space, defaults = settings_of(self.start)
            found |= {k: (k, d, defaults[k]) for k, d in space.items()}
        return {k: v for k, v in found.items() if k not in FIXED}

    @property
    def fixed(self) -> dict[str, Scalar]:
        return {k: v for k, v in self.start.hyperparameters.items() if k not in self.space}

    @property
    def label(self) -> str:
        return Setup(self.start.method, self.fixed, self.start.recipe, self.start.sources).label

    def parameters(self, setup: Setup) -> dict[str, Scalar]:
        """A setup of this branch as the study has it."""
        values = {name: setup.hyperparameters.get(k, default) for k, (name, _, default) in self.space.items()}
        return {"branch": self.label} | values

    def suggest(self, trial) -> Setup:
        values = {k: _suggest(trial, name, domain) for k, (name, domain, _) in self.space.items()}
        return Setup(self.start.method, self.fixed | values, self.start.recipe, self.start.sources)


def _suggest(trial, name: str, domain: Domain) -> Scalar:
    match domain:
        case Float():
            return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
        case Int():
            return trial.suggest_int(name, domain.low, domain.high)
        case Choice():
            return trial.suggest_categorical(name, domain.options)


@dataclass(frozen=True)
class Trial:
    """One trial: what was tried, how it ended (complete, pruned, fail), its validation score and its run."""

    number: int
    state: str
    setup: str
    score: float | None
    run: str | None


@dataclass(frozen=True)
class Tuning:
    """What a search found: the best run by validation, its setup, and all trials in order."""

    run: Run
    setup: Setup
    task: Task
    trials: tuple[Trial, ...]
    study: str


def tune(
    dataset: Dataset,
    store: Store,
    *,
    trials: int = 30,
    starts: Sequence[Setup] | None = None,
    top: int = STARTS,
    evidence: Store | None = None,
    task: Task | None = None,
    seed: int = 0,
    from_scratch: bool = False,
    report: Callable[[Trial], None] | None = None,
    **options: Any,
) -> Tuning:
    """Search until there are `trials` trials in all; called again, it goes on where it stopped.

    starts: setups that the search space is made of and that are tried first; the `top` recommended ones if None.
    from_scratch: the same space without trying them first. options: those of `make_job`, such as device. What is
    chosen by is the validation score; test scores are reported and nothing else. Kept in a database beside the store.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task = task or make_task(dataset)
    higher = get_measure(task.measure).higher
    name = f"{task.dataset} {task.id[:12]} seed {seed}" + (" from scratch" if from_scratch else "")
    study = optuna.create_study(
        storage=_storage(store), study_name=name, load_if_exists=True, direction="maximize" if higher else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=WARM_UP),
    )  # fmt: skip
    branches = _branches(study, starts, lambda: _recommended(dataset, evidence or store, top, seed), from_scratch)
    _resume(study)
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    objective = _Objective(dataset, task, store, evidence or store, branches, seed, options)
    missing = trials - sum(map(_counts, study.trials))
    if missing > 0:
        tell = [lambda _, trial: report(_trial(trial))] if report else []
        study.optimize(objective, n_trials=missing, callbacks=tell)
    return _result(study, store, task)


def _storage(store: Store) -> str | None:
    return f"sqlite:///{store.path}.tuning" if store.path else None


def _recommended(dataset: Dataset, evidence: Store, top: int, seed: int) -> list[Setup]:
    ranking = recommend(dataset, evidence, top=top, seed=seed).ranking
    found = [candidate.setup for candidate in ranking if candidate.runnable]
    if not found:
        raise NotApplicable(f"none of the setups recommended for {dataset.name} can be run here")
    return found


def _branches(study, starts: Sequence[Setup] | None, recommended: Callable, from_scratch: bool) -> dict[str, Branch]:
    """The search space by label, as it was when the study began; a new one gets its first trials."""
    if "starts" not in study.user_attrs:
        starts = list(starts or recommended())
        study.set_user_attr("starts", [asdict(setup) for setup in starts])
        for setup in () if from_scratch else starts:
            study.enqueue_trial(Branch(setup).parameters(setup), skip_if_exists=True)
    kept = [Setup(**s | {"sources": tuple(s["sources"])}) for s in study.user_attrs["starts"]]
    return {branch.label: branch for branch in map(Branch, kept)}


def _resume(study) -> None:
    """What was under way when an earlier search was stopped is tried again."""
    import optuna

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # killed: nobody else tunes this study
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    asked = [t.system_attrs.get("fixed_params") for t in study.trials if t.state.name == "WAITING"]
    tried = [trial.params for trial in study.trials if _counts(trial)] + asked
    for trial in study.trials:
        if trial.state.is_finished() and not _counts(trial) and trial.params and trial.params not in tried:
            study.enqueue_trial(trial.params)
            tried.append(trial.params)


def _counts(trial) -> bool:
    """Did it come to an end, be it a failure? A failure without a run was interrupted."""
    return trial.state.is_finished() and (trial.state.name != "FAIL" or "run" in trial.user_attrs)


@dataclass(frozen=True)
class _Objective:
    """A trial's validation score; its run goes to the store, or comes from there."""

    dataset: Dataset
    task: Task
    store: Store
    evidence: Store
    branches: dict[str, Branch]
    seed: int
    options: dict

    def __call__(self, trial) -> float:
        setup = self.branches[trial.suggest_categorical("branch", list(self.branches))].suggest(trial)
        self.store.add_all([self.evidence.source(name) for name in setup.sources])
        job = make_job(setup, self.task, self.dataset, self.store, seed=self.seed, **self.options)
        trial.set_user_attr("setup", job.setup.label)
        known = self.store.get(job.run.id) if self.store.has(job.run.id) else None
        run = known if known and not known.error else run_setup(
            setup, self.task, self.dataset, self.store, seed=self.seed, progress=self._judge(trial), **self.options
        )  # fmt: skip
        trial.set_user_attr("run", run.id)
        return run.score(f"validation_{self.task.measure}")  # NaN for a failed run: Optuna counts it as failed

    def _judge(self, trial) -> Callable[[int, int, float], None]:
        """Tells the pruner the validation loss after every epoch, and stops a trial that is behind the others."""
        sign = -1 if get_measure(self.task.measure).higher else 1

        def progress(epoch: int, epochs: int, loss: float) -> None:
            import optuna

            trial.report(sign * loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return progress


def _trial(trial) -> Trial:
    about = trial.user_attrs
    score = trial.value if trial.state.name == "COMPLETE" else None
    return Trial(trial.number, trial.state.name.lower(), about.get("setup", ""), score, about.get("run"))


def _result(study, store: Store, task: Task) -> Tuning:
    trials = tuple(_trial(trial) for trial in study.trials if _counts(trial))
    if not any(trial.state == "complete" for trial in trials):
        raise MetamedError(f"none of {len(trials)} trials on {task.dataset} succeeded; `metamed list runs` says why")
    run = store.get(study.best_trial.user_attrs["run"])
    done = [trial for trial in trials if trial.run and trial.score is not None]
    tried = [(store.get(store.get(trial.run).setup), trial.score) for trial in done]
    keep_trace(store, run.id, tried, [trial.run for trial in done].index(run.id))
    return Tuning(run, store.get(run.setup), task, trials, study.study_name)
