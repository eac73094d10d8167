"""What crosses doors: frozen records whose ids are hashes of their content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from metamed.dataset import Kind, Split

Scalar = bool | int | float | str | None


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def content_id(*parts) -> str:
    """40 hex digits of the SHA-256 of `parts` as canonical JSON: equal content, equal id, on every machine."""
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Setup:
    """A flow with its settings: what is run, compared and recommended.

    hyperparameters: of the method, the recipe and the training, in one flat namespace.
    recipe: a transfer method's name, None when training from scratch or probing frozen features.
    sources: names of `Source`s; two or more make a source ensemble.
    """

    method: str
    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    recipe: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return content_id("setup", self.method, self.hyperparameters, self.recipe, self.sources)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def label(self) -> str:
        """One line for people, e.g. `resnet(depth=50) · finetune from imagenet.coral.mobilenet_v2`."""
        settings = ", ".join(f"{k}={v}" for k, v in sorted(self.hyperparameters.items()))
        scratch = f"{self.recipe}, from scratch" if self.recipe else "from scratch"
        start = f"{self.recipe or 'frozen'} from {' + '.join(self.sources)}" if self.sources else scratch
        return f"{self.method}({settings}) · {start}" if settings else f"{self.method} · {start}"


@dataclass(frozen=True)
class Source:
    """Weights one can start from; a dataset on which a method was trained is one of them.

    network: torchvision-style name of the architecture. objective: what was learned (supervised, dino ...).
    corpus: names of the datasets learned from. preprocessing: name understood by `training` (pixel scaling, padding).
    origin: how to get it: shipped | torchvision | path | train:<id of the run that made it> | random:<seed>.
    """

    name: str
    network: str
    objective: str
    corpus: tuple[str, ...]
    preprocessing: str
    sha256: str
    licence: str
    origin: str

    @property
    def id(self) -> str:
        return content_id("source", asdict(self))


TEST_SHARE = 0.2  # of a holdout, kept for testing


@dataclass(frozen=True)
class Task:
    """A dataset with a target, a training size, an estimation procedure and a measure.

    size: number of training samples, None for all. procedure: holdout | given | 4-fold | 10-fold | ordered.
    """

    dataset: str
    digest: str
    kind: Kind
    target: str
    size: int | None
    procedure: str
    measure: str
    folds: tuple[Split, ...]

    @property
    def id(self) -> str:
        return content_id("task", asdict(self))


@dataclass(frozen=True)
class Run:
    """One setup on one task with one seed, by one version of method, recipe and training.

    task, setup: ids. evaluations: measure -> one value per fold. seconds: compute time, all folds together.
    weights: sha256 of the source weights that it started from. error: one line where it failed, else None.
    """

    task: str
    setup: str
    seed: int
    versions: tuple[int, ...]
    evaluations: dict[str, tuple[float, ...]]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    error: str | None = None

    @property
    def id(self) -> str:
        return content_id("run", self.task, self.setup, self.seed, self.versions, self.weights)

    def score(self, measure: str) -> float:
        """Mean over folds; NaN for a failed run or a measure that it does not have."""
        values = self.evaluations.get(measure, ())
        return sum(values) / len(values) if values else float("nan")


@dataclass(frozen=True)
class Published:
    """A figure from a paper. Figures compare only within one (study, protocol, dataset, target, measure).

    setup: id of the Setup that the paper's words were mapped to. place: the table or file it was read from.
    """

    study: str
    protocol: str
    dataset: str
    target: str
    setup: str
    measure: str
    value: float
    sd: float | None
    repeats: int
    paper: str
    place: str

    @property
    def id(self) -> str:
        return content_id("published", self.study, self.protocol, self.dataset, self.target, self.setup, self.measure)


@dataclass(frozen=True)
class Candidate:
    """A setup with what to expect of it: score with its 90 % interval, in the unit of `Recommendation.measure`.

    score is NaN where the evidence allows an order but no figure. cost: minutes by device.
    evidence: ids of runs and published figures.
    """

    setup: Setup
    score: float
    low: float
    high: float
    evidence: tuple[str, ...] = ()
    cost: dict[str, float] = field(default_factory=dict)
    runnable: bool = True
    note: str = ""


@dataclass(frozen=True)
class Recommendation:
    """A ranked answer for one dataset.

    sources: transfer sources, best first; the weights of an ensemble sum to 1. basis: which evidence and which learner.
    """

    dataset: str
    kind: Kind
    measure: str
    ranking: tuple[Candidate, ...]
    sources: tuple[tuple[str, float], ...]
    metafeatures: dict[str, float]
    basis: str
    facts: str = ""
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    explanation: dict = field(default_factory=dict)
