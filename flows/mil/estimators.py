"""What the classic variants share: features standardised, one machine for each finding, margins made probabilities."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from metamed.errors import MetamedError

LEAST = 1e-7  # least probability of a class
State = dict[str, np.ndarray]


class Bags:
    """Bags side by side: instances x, float32 (n, D), of which bag b has `sizes[b]` from `starts[b]` on."""

    def __init__(self, x: np.ndarray, sizes: np.ndarray):
        self.x, self.sizes = x, sizes
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    @classmethod
    def of(cls, bags: Sequence[np.ndarray]) -> Bags:
        return cls(np.concatenate(bags).astype(np.float32), np.array([len(bag) for bag in bags]))

    @property
    def row(self) -> np.ndarray:
        """The bag of each instance."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def pooled(self, values: np.ndarray, how: str = "max") -> np.ndarray:
        """The mean, maximum, minimum or logarithm of the mean exponential of the values of each bag's instances."""
        if how in ("max", "min"):
            return (np.maximum if how == "max" else np.minimum).reduceat(values, self.starts)
        sizes = self.sizes.reshape(-1, *[1] * (values.ndim - 1))
        if how == "mean":
            return np.add.reduceat(values, self.starts) / sizes
        top = self.pooled(values)
        return top + np.log(np.add.reduceat(np.exp(values - top[self.row]), self.starts) / sizes)

    def blocks(self, instances: int) -> list[np.ndarray]:
        """Numbers of consecutive bags that together have about so many instances: what fits into memory at once."""
        return np.split(np.arange(len(self.sizes)), np.flatnonzero(np.diff(self.starts // instances)) + 1)

    def part(self, bags: np.ndarray) -> Bags:
        """Consecutive bags."""
        first = self.starts[bags[0]]
        return Bags(self.x[first : first + self.sizes[bags].sum()], self.sizes[bags])


class Machine(ABC):
    """Learns one question: is a bag positive? All that it learned lies in `state`, as arrays by name.

    logit: are its margins log-odds already? Others are turned into such by the training bags.
    """

    logit = False

    def __init__(self):
        self.state: State = {}

    @abstractmethod
    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        """Learn from standardised bags and whether each is positive, bool (bags,)."""

    @abstractmethod
    def margins(self, bags: Bags) -> np.ndarray:
        """The higher the more positive, (bags,)."""

    def scores(self, x: np.ndarray) -> np.ndarray:
        """The same for instances x (n, D): here, for bags of one instance each."""
        return self.margins(Bags(x, np.ones(len(x), np.int64)))


class BagClassifier:
    """An estimator of bags over one machine for the finding, or one for each class where there are more than two."""

    def __init__(self, n_classes: int, machine: Callable[[], Machine]):
        self.n_classes = n_classes
        self.machines = [machine() for _ in range(1 if n_classes == 2 else n_classes)]
        self.mean = self.scale = np.zeros(0, np.float32)

    def fit(self, bags: Sequence[np.ndarray], y: np.ndarray) -> BagClassifier:
        """Learn from bags, each (instances, features), and their classes, int (bags,)."""
        from sklearn.exceptions import ConvergenceWarning

        together = Bags.of(bags)
        self.mean, self.scale = together.x.mean(axis=0), together.x.std(axis=0)
        self.scale[self.scale < 1e-6 * np.maximum(1, np.abs(self.mean))] = 1
        together.x = self._scaled(together.x)
        with warnings.catch_warnings():  # a fixed number of passes is what was asked for
            warnings.simplefilter("ignore", ConvergenceWarning)
            for k, machine in zip(self._asked, self.machines, strict=True):
                _teach(machine, together, y == k)
        return self

    @property
    def _asked(self) -> Sequence[int]:
        return range(self.n_classes) if len(self.machines) > 1 else (1,)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return ((np.asarray(x, np.float32) - self.mean) / self.scale).astype(np.float32)

    def predict(self, bags: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probabilities of all classes, float32 (bags, K)."""
        together = Bags.of([self._scaled(bag) for bag in bags])
        odds = np.stack([_log_odds(machine, together) for machine in self.machines], axis=1)
        p = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
        p = np.concatenate([1 - p, p], axis=1) if len(self.machines) == 1 else p / p.sum(axis=1, keepdims=True)
        return np.log(np.clip(p, LEAST, 1)).astype(np.float32)

    def scores(self, bag: np.ndarray) -> np.ndarray:
        """How much each instance of a bag speaks for a finding, float32 (instances,)."""
        known = [m for k, m in zip(self._asked, self.machines, strict=True) if k > 0 and "always" not in m.state]
        found = [m.scores(self._scaled(bag)) for m in known] or [np.zeros(len(bag))]
        return np.max(found, axis=0).astype(np.float32)

    def state(self) -> State:
        """All that it learned."""
        learned = {f"{n}.{k}": np.asarray(v) for n, m in enumerate(self.machines) for k, v in m.state.items()}
        return learned | {"mean": self.mean, "scale": self.scale}

    def load(self, state: State) -> BagClassifier:
        """Take over what another one of the same settings learned. Raises MetamedError for one of other classes."""
        numbers = {int(name.split(".")[0]) for name in state if "." in name}
        if numbers != set(range(len(self.machines))):
            raise MetamedError(f"what was kept answers {len(numbers)} questions, not {len(self.machines)}")
        self.mean, self.scale = state["mean"], state["scale"]
        for n, machine in enumerate(self.machines):
            machine.state = {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"{n}.")}
        return self


def _teach(machine: Machine, bags: Bags, positive: np.ndarray) -> None:
    """What a machine learns, and the odds of its margins; where all bags are alike, that they are."""
    if positive.all() or not positive.any():
        machine.state = {"always": np.float32(10 if positive.all() else -10)}
        return
    machine.fit(bags, positive)
    if not machine.logit:
        machine.state["odds"] = _odds(machine.margins(bags), positive)


def _odds(margins: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(slope, intercept) that make log-odds of margins (Platt, 1999), from the training bags."""
    from sklearn.linear_model import LogisticRegression

    spread = float(margins.std()) or 1.0
    fitted = LogisticRegression().fit(margins[:, None] / spread, positive)
    return np.array([max(float(fitted.coef_[0, 0]), 1e-6) / spread, float(fitted.intercept_[0])])


def _log_odds(machine: Machine, bags: Bags) -> np.ndarray:
    if "always" in machine.state:
        return np.full(len(bags.sizes), machine.state["always"])
    margins = machine.margins(bags)
    if machine.logit:
        return margins
    slope, intercept = machine.state["odds"]
    return slope * margins + intercept


def linear(x: np.ndarray, state: State) -> np.ndarray:
    """A linear function of x (n, D) by `weight` and `bias`, (n,)."""
    return x @ state["weight"] + state["bias"]


def logistic(x: np.ndarray, positive: np.ndarray, c: float) -> State:
    """Logistic regression of inverse penalty `c`, the classes weighted alike, as `weight` and `bias`."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=c, class_weight="balanced", max_iter=500).fit(x, positive)
    return {"weight": fitted.coef_[0].astype(np.float32), "bias": np.float32(fitted.intercept_[0])}


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of the rows of x and y, float32 (len(x), len(y))."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)
    return np.maximum(squares - 2 * (x @ y.T), 0)
