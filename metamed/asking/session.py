"""One round of asking: questions chosen, asked, kept in their table, and what all answers so far are worth."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from metamed.asking.choosing import choose
from metamed.asking.constraints import learn_with
from metamed.asking.gains import Gain, gain
from metamed.asking.page import QuestionPage
from metamed.asking.questions import Question, answers_of, read_questions, write_questions
from metamed.dataset import ArrayImages, Dataset, spread, take
from metamed.errors import NotApplicable
from metamed.readers.patches import png
from metamed.records import Setup
from metamed.store import Store
from metamed.training.mil import Bags
from metamed.trust import Learn
from metamed.trust.learning import COMPONENTS, Keep, components, learner
from metamed.trust.measures import ranks

BY, BESIDE = "uncertain_diverse", 8
METHOD, SOURCE = "mi_svm_bags", "imagenet.coral.mobilenet_v2"  # who asks, unless a setup is given


@dataclass(frozen=True, eq=False)
class Session:
    """A dataset whose instances are asked about, how its bags are learned, and the table of questions."""

    dataset: Dataset
    learn: Learn
    bags: Sequence[np.ndarray]
    table: Path
    questions: list[Question] = field(default_factory=list)

    @classmethod
    def of(
        cls, dataset: Dataset, table: Path, store: Store, setup: Setup | None = None, device: str = "auto",
        keep: Keep | None = None,
    ) -> Session:  # fmt: skip
        """The session of a dataset with the questions that its table holds already.

        setup: who asks and learns; one that learns within seconds if None. keep: takes frozen features for the next
        round, `store` if None. Raises NotApplicable for data without bags, without labels, or of which no bag holds a
        finding.
        """
        if dataset.bags is None or dataset.target is None or dataset.multi_label:
            raise NotApplicable(f"{dataset.name}: questions about instances need bags with one label each")
        if not (dataset.target > 0).any():
            raise NotApplicable(f"{dataset.name}: all bags are '{classes_of(dataset)[0]}': no finding to ask about")
        made = partial(learner, setup) if setup else quick
        lazy, learn = made(dataset, store, device=device, keep=keep)
        bags = [lazy[b] for b in range(dataset.n_samples)]
        return cls(dataset, learn, bags, table, read_questions(table, classes_of(dataset)))

    @property
    def classes(self) -> tuple[str, ...]:
        return classes_of(self.dataset)

    @property
    def members(self) -> list[np.ndarray]:
        """The numbers of each bag's instances."""
        order, sizes = np.argsort(self.dataset.bags, kind="stable"), np.bincount(self.dataset.bags)
        return np.split(order, np.cumsum(sizes)[:-1])

    @property
    def answers(self) -> dict[int, int]:
        return answers_of(self.questions, self.classes)

    def choose(self, n: int, by: str = BY, seed: int = 0) -> int:
        """Write questions to the table until `n` are open; how many are new."""
        lacking = n - sum(not q.answer for q in self.questions)
        if lacking <= 0:
            return 0
        asked = {q.instance: -1 for q in self.questions} | self.answers  # what cannot be told is not asked again
        known = self.learn, self.bags, self.dataset.target, self.members
        numbers, scores = choose(*known, lacking, by=by, answers=asked, seed=seed)
        self.questions.extend(self._question(int(i), float(s), by) for i, s in zip(numbers, scores, strict=True))
        self.keep(self.questions)
        return len(numbers)

    def _question(self, instance: int, score: float, by: str) -> Question:
        places = self.dataset.coordinates
        x, y = (None, None) if places is None else (float(v) for v in places[instance][:2])
        return Question(instance, int(self.dataset.bags[instance]), score, by, x, y)

    def keep(self, questions: Sequence[Question]) -> None:
        """Write the table, with the answers that it has by now."""
        self.questions[:] = questions
        write_questions(self.table, self.questions)

    def page(self, port: int = 0) -> QuestionPage:
        """The page of the open questions, which keeps every answer in the table."""
        images = self.dataset.images
        shown: Callable[[int], bytes] | None = None if len(images.shape) < 4 else lambda i: png(images[i])
        return QuestionPage(self.questions, self.classes, self.keep, shown, self.beside, port)

    def beside(self, instance: int) -> np.ndarray:
        """Other instances of the same bag, at most eight: the nearest where places are known, else some of it."""
        others = np.setdiff1d(self.members[self.dataset.bags[instance]], [instance])
        if self.dataset.coordinates is None:
            return others[spread(len(others), BESIDE)]
        away = self.dataset.coordinates[others].astype(np.float64) - self.dataset.coordinates[instance]
        return others[np.argsort((away**2).sum(axis=1), kind="stable")[:BESIDE]]

    def gains(self, seed: int = 0) -> list[Gain]:
        """What the answers so far gained on bags that were held out."""
        return gain(self.learn, self.bags, self.dataset.target, self.members, self.answers, groups=self.dataset.groups,
                    seed=seed)  # fmt: skip

    def write_scores(self, path: Path, seed: int = 0) -> None:
        """Every instance with its place 0-1 in the order of scores, by a model of all bags and all answers."""
        known = np.flatnonzero(self.dataset.target >= 0)
        model = learn_with(self.learn, [self.bags[b] for b in known], self.dataset.target[known],
                           [self.members[b] for b in known], self.answers, seed)  # fmt: skip
        numbers = np.concatenate(self.members)
        scores = np.concatenate([np.asarray(model.scores(bag)).reshape(-1) for bag in self.bags])
        places, named = ranks(scores)[0] / len(scores), self.answers
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["instance", "bag", "score", "answer"])
            for i in np.argsort(numbers):
                number = int(numbers[i])
                answer = self.classes[named[number]] if number in named else ""
                rows.writerow([number, int(self.dataset.bags[number]), f"{places[i]:.4f}", answer])


def quick(
    dataset: Dataset, store: Store, *, device: str = "auto", keep: Keep | None = None
) -> tuple[Bags, Learn]:  # fmt: skip
    """Bags and a learner that answers within seconds: the first principal components of the features, of a frozen
    source where instances are images, and a variant that was examined with them (`benchmarks/asking.py`)."""
    seen = Setup(METHOD, {}, None, () if len(dataset.images.shape) == 2 else (SOURCE,))
    features, _ = learner(seen, dataset, store, device=device, keep=keep)
    values = take(features.instances, np.arange(len(dataset.images)))
    if values.shape[1] > COMPONENTS:
        values = components(values)
    return learner(Setup(METHOD), replace(dataset, images=ArrayImages(values)), store, device=device)


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """Names of the classes, else their numbers."""
    known = dataset.card.classes
    return known if len(known) == dataset.n_classes else tuple(map(str, range(dataset.n_classes)))
