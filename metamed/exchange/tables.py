"""Tables: a task of the store as the rows and the estimation procedure of an OpenML dataset, and back.

A table has one row a sample, in an order that makes a server's own folds those of the task. Beside the class it says
only which samples belong together and what each fold does with them; the images stay where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import md5
from math import isfinite, nan

import numpy as np

from metamed.dataset import KINDS, Card, Split, spread
from metamed.errors import NotApplicable, ReadError
from metamed.records import Task, content_id
from metamed.splits import PROCEDURES, crossvalidation, rows_for_test
from metamed.store.evidence import DatasetFacts
from metamed.store.labels import Labels, by_appearance
from metamed.store.limits import DESCRIPTION, LICENCE, dataset_name, latin

TARGET, IGNORED = "target", ("image", "group", "parts")
TAG, DATASET_TAG = "metamed", "metamed.d."  # on all that metamed publishes; on meta-features, with a dataset's digest
BEYOND = 0.2  # share of the training samples that may be without a row: where a sixth or more is tested on
_UNUSED = "-"
_HEAD = "metamed."  # comment lines of the ARFF that begin so hold records as JSON


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
    """A task as it is published. rows: the sample of each row, -1 where a row only fills up to the procedure's share.

    beyond: samples trained on that have no row, since the procedure has no place for them. procedure: its number on
    servers. more: further columns, name -> a word for each sample (with images: path, sha256).
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
    def ignored(self) -> tuple[str, ...]:
        """Columns that are no input of a model."""
        return (*IGNORED, *self.more)

    @cached_property
    def arff(self) -> str:
        import arff

        attributes = [("image", "INTEGER"), ("group", "INTEGER"), ("parts", "STRING"),
                      *((name, "STRING") for name in self.more), (TARGET, list(self.classes))]  # fmt: skip
        return arff.dumps({"description": self._head(), "relation": self.name,
                           "attributes": attributes, "data": self._data()})  # fmt: skip

    def _head(self) -> str:
        """Records as JSON, in comment lines."""
        words = part_words(self.task.folds, self.beyond) if len(self.beyond) else []
        lines = {"dataset": asdict(self.facts), "beyond": dict(zip(self.beyond.tolist(), words, strict=True)),
                 "task": {name: value for name, value in vars(self.task).items() if name != "folds"}}  # fmt: skip
        return "\n".join(f"{_HEAD}{name} {json.dumps(value)}" for name, value in lines.items())

    def _data(self) -> list[list]:
        target, groups, parts = self.labels.target, self._groups(), part_words(self.task.folds, self.rows)
        return [[None, None, _UNUSED, *(None for _ in self.more), None] if sample < 0 else
                [int(sample), group, word, *(column[sample] for column in self.more.values()),
                 self.classes[target[sample]]]
                for sample, group, word in zip(self.rows, groups, parts, strict=True)]  # fmt: skip

    def _groups(self) -> list[int | None]:
        if self.labels.groups is None:
            return [None] * len(self.rows)
        known = self.rows >= 0
        groups = np.zeros(len(self.rows), int)
        groups[known] = by_appearance(self.labels.groups[self.rows[known]])
        return groups.tolist()

    @cached_property
    def row_of(self) -> dict[int, int]:
        """The row of each sample."""
        return {int(sample): row for row, sample in enumerate(self.rows) if sample >= 0}

    @property
    def test_rows(self) -> list[list[int]]:
        """Ascending rows that each fold tests on, as the server has to see them."""
        return [sorted(self.row_of[sample] for sample in fold.test) for fold in self.task.folds]

    @property
    def description(self) -> str:
        f = self.facts
        about = ", ".join(filter(None, (f.card.modality, f.card.organ))) or "modality not stated"
        text = (
            f"{f.name}: {f.n_samples or len(self.row_of)} samples ({about}), {len(self.classes)} classes, for the task "
            f"'{self.task.procedure}' of metamed. One row a {'bag' if f.kind == 'mil' else 'sample'}. The images are "
            "not here: image is a running number, equal group means equal patient (or other unit that no split may "
            "divide), parts has one letter for each fold: t trains, v validates (part of training), e is tested on. "
        )
        if self.procedure == PROCEDURES["ordered"]:
            text += "Rows are in the order in which '20% Holdout (Ordered)' divides them as metamed did; "
            text += f"{int((self.rows < 0).sum())} rows without an image fill up the training part to its share"
            text += f"; {len(self.beyond)} training images found no place." if len(self.beyond) else "."
        return latin(text, DESCRIPTION)


def make_table(
    task: Task, facts: DatasetFacts, labels: Labels, more: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """The table of a task. Raises NotApplicable, with the reason, for what OpenML cannot express."""
    if task.kind in ("segmentation", "similarity"):
        raise NotApplicable(f"OpenML has no task for {task.kind}")
    if labels.target.ndim == 2:
        raise NotApplicable("OpenML's classification knows one label a sample, not several")
    arrange = _ordered if len(task.folds) == 1 else _crossvalidated
    rows, beyond, procedure = arrange(task, labels)
    classes = _class_names(facts, labels)
    table = Table(_sendable(facts), task, labels, rows, beyond, procedure, classes, more or {})
    samples = np.concatenate([rows, beyond])
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
    samples, evenly chosen, have no row. More than BEYOND of them would make another task of it.
    """
    fold = task.folds[0]
    train, test = np.array(sorted((*fold.train, *fold.validation))), sorted(fold.test)
    place = rows_for_test(len(test)) - len(test)
    if (surplus := max(len(train) - place, 0)) > BEYOND * len(train):
        raise NotApplicable(f"{len(test)} of {len(train) + len(test)} samples are tested on; the only procedure of "
                            "OpenML that keeps patients together tests on a fifth")  # fmt: skip
    beyond = train[spread(len(train), surplus)] if surplus else train[:0]
    rows = [*np.setdiff1d(train, beyond), *[-1] * (place - len(train) + surplus), *test]
    return np.array(rows), beyond, PROCEDURES["ordered"]


def _crossvalidated(task: Task, labels: Labels) -> tuple[np.ndarray, np.ndarray, int]:
    """Several folds: possible where they are those that the server will make."""
    k = len(task.folds)
    if f"{k}-fold" not in PROCEDURES:
        raise NotApplicable(f"OpenML has no {k}-fold cross-validation")
    rows = np.array(sorted({s for fold in task.folds for s in fold.test}))
    theirs = next(crossvalidation(labels.target[rows].tolist(), len(rows), k))
    if any(rows[t].tolist() != sorted(fold.test) for t, fold in zip(theirs, task.folds, strict=True)):
        raise NotApplicable(f"its {k} folds are not those that an OpenML server makes (patients kept together?)")
    return rows, rows[:0], PROCEDURES[f"{k}-fold"]


@dataclass(frozen=True, eq=False)
class MetaTable(Publishable):
    """The meta-features of a dataset as a dataset of its own: one row a meta-feature; undefined ones are missing."""

    facts: DatasetFacts
    values: Mapping[str, float]

    @property
    def name(self) -> str:
        return dataset_name(f"metafeatures.{self.facts.name}")

    @property
    def tags(self) -> list[str]:
        return [TAG, DATASET_TAG + self.facts.digest]

    @cached_property
    def arff(self) -> str:
        import arff

        rows = [[name, value if isfinite(value) else None] for name, value in sorted(self.values.items())]
        return arff.dumps({"description": f"{_HEAD}digest {json.dumps(self.facts.digest)}", "relation": self.name,
                           "attributes": [("feature", "STRING"), ("value", "REAL")], "data": rows})  # fmt: skip

    ignored = ()

    @property
    def description(self) -> str:
        return f"{len(self.values)} meta-features of the images of {self.facts.name}, computed by metamed."


def read_metatable(text: str) -> dict[str, float]:
    """The meta-features of an ARFF that `MetaTable.arff` wrote. Raises ReadError where it is anything else."""
    import arff

    try:
        return {str(name): nan if value is None else float(value) for name, value in arff.loads(text)["data"]}
    except (arff.ArffException, TypeError, ValueError) as error:
        raise ReadError(f"meta-features that cannot be read ({type(error).__name__}: {error})") from None


# ---- what the folds do with each row


def part_words(folds: Sequence[Split], rows: np.ndarray) -> list[str]:
    """For each row one letter a fold: t(rain) v(alidation) e(valuation) -(unused)."""
    size = int(rows.max()) + 1
    letters = np.full((size + 1, len(folds)), _UNUSED)  # the last line is that of sample -1
    for k, fold in enumerate(folds):
        for part, letter in ((fold.train, "t"), (fold.validation, "v"), (fold.test, "e")):
            letters[list(part), k] = letter
    return ["".join(line) for line in letters[rows]]


def folds_of(words: Sequence[str], rows: np.ndarray) -> tuple[Split, ...]:
    """The folds that the words of `part_words` tell, samples in ascending order."""
    known = np.argsort(rows, kind="stable")[int((rows < 0).sum()):]
    letters = np.array([list(words[row]) for row in known])
    samples = rows[known]
    return tuple(Split(*(tuple(samples[column == letter].tolist()) for letter in "tve")) for column in letters.T)


# ---- records in the comments of the ARFF


def read_table(text: str) -> tuple[DatasetFacts, Task, np.ndarray] | None:
    """Dataset, task and the sample of each row of an ARFF that `Table.arff` wrote; None for anybody else's.

    Raises ReadError where it is damaged.
    """
    lines = re.findall(rf"^% ?{re.escape(_HEAD)}(\w+) (.*)$", text.split("@RELATION", 1)[0], re.MULTILINE)
    if {"dataset", "task"} - {name for name, _ in lines}:
        return None
    import arff

    try:
        head = {name: json.loads(value) for name, value in lines}
        data = arff.loads(text)
        columns = [name for name, _ in data["attributes"]]
        image, parts = (columns.index(name) for name in ("image", "parts"))
        rows = np.array([-1 if row[image] is None else int(row[image]) for row in data["data"]])
        beyond = {int(sample): str(word) for sample, word in head.get("beyond", {}).items()}
        folds = folds_of([*(row[parts] for row in data["data"]), *beyond.values()], np.array([*rows, *beyond]))
        return _facts(head["dataset"]), _task(**head["task"], folds=folds), rows
    except (arff.ArffException, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ReadError(f"a table of metamed that cannot be read ({type(error).__name__}: {error})") from None


def _task(dataset, digest, kind, target, size, procedure, measure, folds) -> Task:
    size = None if size is None else int(size)
    return Task(str(dataset), str(digest), str(kind), str(target), size, str(procedure), str(measure), folds)


def _facts(said: dict) -> DatasetFacts:
    """Every value of its type: strangers may have written it."""
    card = {k: tuple(v) if isinstance(v, list) else str(v) for k, v in said.pop("card").items()}
    card |= {"classes": tuple(map(str, card["classes"])), "spacing": tuple(map(float, card["spacing"]))}
    facts = {str(k): v for k, v in said.pop("facts").items() if isinstance(v, str) or isfinite(v)}
    words = {k: str(said.pop(k)) for k in ("digest", "name", "kind")}
    sizes = {k: None if v is None else int(v) for k, v in said.items()}
    if words["kind"] not in KINDS:
        raise ValueError(f"kind {words['kind']}")
    return DatasetFacts(**words, card=Card(**card), **sizes, facts=facts)
