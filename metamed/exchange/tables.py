"""Tables: a task of the store as the rows and the estimation procedure of an OpenML dataset.

A table has one row a sample (of masks: a row for each of a few pixels), in an order that makes a server's own folds
those of the task. Beside the class it says only which samples belong together and what each fold does with them; the
images stay where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import md5

import numpy as np

from metamed.dataset import Kind, spread
from metamed.errors import NotApplicable
from metamed.exchange.parts import UNUSED, folds_of, part_words
from metamed.measures import get_measure
from metamed.records import Task, content_id
from metamed.splits import PROCEDURES, crossvalidation, rows_for_test
from metamed.store.evidence import DatasetFacts
from metamed.store.labels import Labels, by_appearance
from metamed.store.limits import DESCRIPTION, LICENCE, latin

TARGET = "target"
SAMPLE: dict[Kind, str] = dict.fromkeys(("classification", "mil", "segmentation"), "image") | {"similarity": "triplet"}
TAG, DATASET_TAG = "metamed", "metamed.d."  # on all that metamed publishes; on meta-features, with a dataset's digest
BEYOND = 0.2  # share of the training rows that may have no place: where a sixth or more is tested on
HEAD = "metamed."  # comment lines of the ARFF that begin so hold records as JSON
_PIXEL, _TRIPLET = ("slice", "row", "col"), ("anchor", "first", "second")


class Publishable:
    """What is published as a dataset: has `facts, name, description, arff, ignored`."""

    target: str | None = None
    tags: Sequence[str] = (TAG,)

    @cached_property
    def md5(self) -> str:
        return md5(self.arff.encode(), usedforsecurity=False).hexdigest()

    @property
    def key(self) -> str:
        return content_id("openml-dataset", self.name, self.md5)


@dataclass(frozen=True, eq=False)
class Table(Publishable):
    """A task as it is published. rows: the entry (of `Labels`) of each row, -1 where a row only fills up to the
    procedure's share.

    beyond: entries trained on that have no row, since the procedure has no place for them. procedure: its number on
    servers. more: what else is told of images, name -> a word for each image or bag (with images: path, sha256).
    """

    facts: DatasetFacts
    task: Task
    labels: Labels
    rows: np.ndarray
    beyond: np.ndarray
    procedure: int
    classes: tuple[str, ...]
    more: Mapping[str, Sequence[str]] = field(default_factory=dict)
    target = TARGET

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def measure(self) -> str | None:
        """What a server ranks runs by."""
        return "f_measure" if self.task.kind == "segmentation" else get_measure(self.task.measure).openml

    @property
    def ignored(self) -> tuple[str, ...]:
        """Columns that are no input of a model."""
        return (SAMPLE[self.task.kind], "group", "parts", *self.told)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that are: where a pixel lies, which images a triplet shows."""
        return () if self.places is None else places_named(self.task.kind)[-self.places.shape[1]:]

    @cached_property
    def arff(self) -> str:
        import arff

        sample, group, parts, *told = self.ignored
        attributes = [(sample, "INTEGER"), (group, "INTEGER"), (parts, "STRING"),
                      *((name, "INTEGER") for name in self.inputs), *((name, "STRING") for name in told),
                      (TARGET, list(self.classes))]  # fmt: skip
        return arff.dumps({"description": self._head(), "relation": self.name,
                           "attributes": attributes, "data": self._data()})  # fmt: skip

    def _head(self) -> str:
        """Records as JSON, in comment lines."""
        rowless = np.setdiff1d(self.labels.samples_of(self.beyond), self.samples)
        words = part_words(self.task.folds, rowless) if len(rowless) else []
        lines = {"dataset": asdict(self.facts), "beyond": dict(zip(rowless.tolist(), words, strict=True)),
                 "task": {name: value for name, value in vars(self.task).items() if name != "folds"}}  # fmt: skip
        return "\n".join(f"{HEAD}{name} {json.dumps(value)}" for name, value in lines.items())

    def _data(self) -> list[list]:
        target, places = self.labels.target[self.rows], [()] * len(self.rows)
        if self.places is not None:
            places = self.places.tolist()
        empty = [None, None, UNUSED, *(None for _ in self.inputs), *(None for _ in self.told), None]
        columns = zip(self.samples.tolist(), self._groups(), part_words(self.task.folds, self.samples), places,
                      zip(*self.told.values(), strict=True) if self.told else [()] * len(places), target, strict=True)
        return [empty if sample < 0 else [sample, group, word, *place, *told, self.classes[k]]
                for sample, group, word, place, told, k in columns]  # fmt: skip

    def _groups(self) -> list[int | None]:
        if self.labels.groups is None:
            return [None] * len(self.rows)
        known = self.rows >= 0
        groups = np.zeros(len(self.rows), int)
        groups[known] = by_appearance(self.labels.groups[self.samples[known]])
        return groups.tolist()

    @cached_property
    def told(self) -> dict[str, list[str]]:
        """`more` for each row; of a triplet, of each of its images."""
        shown = {"": self.samples}
        if self.task.kind == "similarity":
            shown = {f"{who}_": self.places[:, k] for k, who in enumerate(_TRIPLET)}
        return {prefix + name: [words[image] for image in images.tolist()]
                for name, words in self.more.items() for prefix, images in shown.items()}  # fmt: skip

    @cached_property
    def samples(self) -> np.ndarray:
        """The sample of each row, -1 where a row only fills up."""
        return self.labels.samples_of(self.rows)

    @cached_property
    def places(self) -> np.ndarray | None:
        """Where each row lies, as in `Labels`; anything where it only fills up."""
        return None if self.labels.places is None else self.labels.places[self.rows]

    @cached_property
    def rows_of(self) -> dict[int, list[int]]:
        """The rows of each sample."""
        found: dict[int, list[int]] = {}
        for row, sample in enumerate(self.samples.tolist()):
            found.setdefault(sample, []).append(row)
        return {sample: rows for sample, rows in found.items() if sample >= 0}

    @property
    def test_rows(self) -> list[list[int]]:
        """Ascending rows that each fold tests on, as the server has to see them."""
        return [sorted(row for sample in fold.test for row in self.rows_of[sample]) for fold in self.task.folds]

    @property
    def description(self) -> str:
        f = self.facts
        about = ", ".join(filter(None, (f.card.modality, f.card.organ))) or "modality not stated"
        text = (
            f"{f.name}: {f.n_samples or len(self.rows_of)} samples ({about}), {len(self.classes)} classes, for the "
            f"task '{self.task.procedure}' of metamed. {_ROWS[self.task.kind]} The images are "
            f"not here: {SAMPLE[self.task.kind]} is a running number, equal group means equal patient (or other unit "
            "that no split may divide), parts has one letter for each fold: t trains, v validates (part of training), "
            "e is tested on. "
        )
        if self.procedure == PROCEDURES["ordered"]:
            text += "Rows are in the order in which '20% Holdout (Ordered)' divides them as metamed did; "
            text += f"{int((self.rows < 0).sum())} rows without an image fill up the training part to its share"
            what = "pixels" if self.task.kind == "segmentation" else f"{SAMPLE[self.task.kind]}s"
            text += f"; {len(self.beyond)} training {what} found no place." if len(self.beyond) else "."
        return latin(text, DESCRIPTION)


_ROWS: dict[Kind, str] = {
    "classification": "One row a sample.", "mil": "One row a bag.",
    "segmentation": "One row a pixel, a few of each mask, drawn by a fixed seed: row and col count from 0 at the top "
                    "left; f_measure is the Dice coefficient of each class on these pixels.",
    "similarity": "One row a triplet: which of two images, first or second, looks more like the anchor?",
}  # fmt: skip


def places_named(kind: Kind) -> tuple[str, ...]:
    """Names of the columns that say where an entry lies; slice in volumes alone."""
    return {"segmentation": _PIXEL, "similarity": _TRIPLET}.get(kind, ())


def make_table(
    task: Task, facts: DatasetFacts, labels: Labels, more: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """The table of a task. Raises NotApplicable, with the reason, for what OpenML cannot express."""
    if labels.target.ndim == 2:
        raise NotApplicable("OpenML's classification knows one label a sample, not several")
    arrange = _ordered if len(task.folds) == 1 else _crossvalidated
    rows, beyond, procedure = arrange(task, labels)
    classes = ("first", "second") if task.kind == "similarity" else _class_names(facts, labels)
    table = Table(_sendable(facts), task, labels, rows, beyond, procedure, classes, more or {})
    samples = labels.samples_of(np.concatenate([rows, beyond]))
    if folds_of(part_words(task.folds, samples), samples) != task.folds:
        raise NotApplicable("the samples of its folds are in an order that a table cannot hold")
    return table


def _sendable(facts: DatasetFacts) -> DatasetFacts:
    """Without what is not meant for others: an address that is no web address may be a path of this machine."""
    card = facts.card
    return replace(facts, card=replace(card, url=card.url if re.match(r"https?://", card.url) else ""))


def _class_names(facts: DatasetFacts, labels: Labels) -> tuple[str, ...]:
    n = max(facts.n_classes or 0, int(labels.target.max()) + 1)
    names = tuple(latin(name, LICENCE) for name in facts.card.classes)
    return names if len(names) == n == len({*names, ""}) - 1 else tuple(map(str, range(n)))


def _ordered(task: Task, labels: Labels) -> tuple[np.ndarray, np.ndarray, int]:
    """One fold: training rows first, and so many rows that the last ones, a fifth, are exactly the tested ones.

    Whole patients make the tested part of a holdout a little smaller than a fifth at times: then a few training
    entries, evenly chosen, have no row. More than BEYOND of them would make another task of it.
    """
    fold = task.folds[0]
    train, test = labels.entries_of((*fold.train, *fold.validation)), labels.entries_of(fold.test)
    place = rows_for_test(len(test)) - len(test)
    if (surplus := max(len(train) - place, 0)) > BEYOND * len(train):
        n, learned = len(fold.test), len(fold.train) + len(fold.validation)
        raise NotApplicable(f"{n} of {learned + n} samples are tested on; the only procedure of OpenML that keeps "
                            "patients together tests on a fifth")  # fmt: skip
    beyond = train[spread(len(train), surplus)] if surplus else train[:0]
    rows = [*np.setdiff1d(train, beyond), *[-1] * (place - len(train) + surplus), *test]
    return np.array(rows), beyond, PROCEDURES["ordered"]


def _crossvalidated(task: Task, labels: Labels) -> tuple[np.ndarray, np.ndarray, int]:
    """Several folds: possible where they are those that the server will make."""
    k = len(task.folds)
    if f"{k}-fold" not in PROCEDURES:
        raise NotApplicable(f"OpenML has no {k}-fold cross-validation")
    rows = labels.entries_of({s for fold in task.folds for s in fold.test})
    theirs = next(crossvalidation(labels.target[rows].tolist(), len(rows), k))
    if any(rows[t].tolist() != labels.entries_of(fold.test).tolist()
           for t, fold in zip(theirs, task.folds, strict=True)):  # fmt: skip
        raise NotApplicable(f"its {k} folds are not those that an OpenML server makes (patients kept together?)")
    return rows, rows[:0], PROCEDURES[f"{k}-fold"]
