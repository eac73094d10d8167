"""What a kept run says of new bags, and of the instances in them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from metamed import training
from metamed.dataset import Dataset
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.experiments import run_of, sources_of
from metamed.jobs import is_frozen, own, side_of, weights_file
from metamed.jobs.mil import ESTIMATOR_FILE, bags_of, shape_of
from metamed.methods import get_method
from metamed.prediction import INPUTS, about, as_model_file
from metamed.records import Run, Setup, Source
from metamed.sources import find_weights, frozen
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.training import mil
from metamed.training.answers import BagAnswer, write_onnx, write_safetensors

NO_GRAPH = {"transmil": "a bag becomes a square of its own size"}  # methods whose graph depends on the bag, and why


@dataclass(frozen=True)
class BagPredictor:
    """A run on bags whose weights were kept, ready to answer for others.

    facts: the dataset that it learned from. state: what it learned, arrays or tensors by name. weights: the files of
    its sources.
    """

    run: Run
    setup: Setup
    facts: DatasetFacts
    sources: tuple[Source, ...]
    weights: tuple[Path, ...]
    state: dict[str, Any]
    device: str = "cpu"

    @classmethod
    def of(cls, run: Run | str, store: Store, *, device: str = "cpu", download: bool = False) -> BagPredictor:
        """The predictor of a run (or its id) by the weights that the store kept.

        Raises MetamedError where none were kept: it says how to make them.
        """
        run = run_of(run, store) if isinstance(run, str) else run
        setup, facts = store.get(run.setup), store.dataset(store.get(run.task).digest)
        sources = sources_of(run, setup, store)
        weights = tuple(find_weights(source, store, download=download) for source in sources)
        file = ESTIMATOR_FILE if get_method(setup.method).estimator else weights_file()
        try:
            state = training.read_weights(store.artifact(run, file))
        except UnknownName:
            raise MetamedError(f"run {run.id[:12]} kept no weights. Make them: metamed run --dataset {facts.name} "
                               f"--method {setup.method} --keep") from None  # fmt: skip
        return cls(run, setup, facts, sources, weights, state, device)

    def bags(self, dataset: Dataset) -> mil.Bags:
        """The dataset's bags as the run's method takes them. Raises NotApplicable for what it did not learn from."""
        about = f"run {self.run.id[:12]} ({self.setup.label}, on {self.facts.name})"
        if dataset.bags is None:
            raise NotApplicable(f"{about} answers for bags; {dataset.name} has none")
        of_features = self.facts.height is None
        need = self.state["mean"].reshape(-1).shape[0] if of_features else self.facts.n_channels
        if of_features != (len(dataset.images.shape) == 2) or dataset.images.shape[1] != need:
            takes = f"{need} features" if of_features else f"{need} channel{'s' * (need != 1)}"
            raise NotApplicable(f"{about} takes instances of {takes}, not of shape {tuple(dataset.images.shape[1:])}")
        return bags_of(self.setup, dataset, self.sources, self.weights, {}, self.device)[0]

    def answer(self, instance: tuple[int, ...]) -> Any:
        """What was trained, for instances of this shape: a `BagModel`, or an estimator of bags."""
        method = get_method(self.setup.method)
        net = method.build(shape_of(instance, self.facts.n_classes), **own(self.setup, method.name))
        if method.estimator:
            return net.load({name: np.asarray(values) for name, values in self.state.items()})
        if any(training.PREPROCESSING[s.preprocessing][2] for s in self.sources) and self.setup.recipe:
            training.pad_as_tensorflow(net.encoder)
        model = mil.BagModel(net, self.state["mean"], self.state["sd"])
        model.load_state_dict(self.state)
        return model.to(training.pick_device(self.device)).eval()

    def __call__(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (bags, K) of the dataset's bags, and how much each of its instances speaks for a finding."""
        bags = self.bags(dataset)
        answer, scores = self.answer(bags.shape), np.empty(len(dataset.images), np.float32)
        for bag in range(len(bags)):
            scores[bags.members(bag)] = mil.instance_scores(answer, bags[bag])
        if isinstance(answer, mil.BagModel):
            return training.probabilities(mil.logits_of(answer, bags, range(len(bags)))), scores
        return np.exp(answer.predict([bags[bag] for bag in range(len(bags))])), scores

    @property
    def instance(self) -> tuple[int, ...]:
        """The shape of an instance as an exported model takes it: features (D,), or an image (C, s, s)."""
        if self.facts.height is None:
            return (self.state["mean"].reshape(-1).shape[0],)
        side = side_of(self.setup, self.facts.height, self.facts.width)
        return self.facts.n_channels, side, side

    def export(self, path: str | Path, images: str = "uint8") -> None:
        """Write the model to .onnx (instances and a mask in; probabilities and scores out, frozen sources inside) or
        .safetensors (what it learned, by name, without the sources).

        images: uint8, or float in 0-1; features are float. Raises NotApplicable for ONNX of what is no network with a
        fixed graph: an estimator, or TransMIL.
        """
        path, words = as_model_file(path, images), about(self.run, self.setup, self.facts, self.classes)
        words |= {"instance": " x ".join(map(str, self.instance))}
        if path.suffix == ".safetensors":
            write_safetensors(self.state, path, words)
            return
        method = get_method(self.setup.method)
        if why := "it is no network" if method.estimator else NO_GRAPH.get(method.name):
            raise NotApplicable(f"{method.name} cannot be written as ONNX ({why}): what it learned goes to "
                                ".safetensors, and `metamed predict` answers")  # fmt: skip
        kind = np.float32 if len(self.instance) == 1 else INPUTS[images]
        given = {"instances": np.zeros((2, 3, *self.instance), kind), "mask": np.ones((2, 3), bool)}
        write_onnx(self.module(), given, ["probabilities", "scores"], ["bags", "instances"], path,
                   words | {"images": np.dtype(kind).name})  # fmt: skip

    def module(self) -> BagAnswer:
        """The network of bags with the frozen encoders before it, as one module of instances and mask."""
        if not is_frozen(self.setup):
            return BagAnswer(self.answer(self.instance))
        encoders = [frozen(s, p, self.facts.n_channels, self.instance[1], self.device)
                    for s, p in zip(self.sources, self.weights, strict=True)]  # fmt: skip
        return BagAnswer(self.answer(tuple(self.state["mean"].reshape(-1).shape)), encoders)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes as the dataset had them, else their numbers."""
        named = self.facts.card.classes
        return named if len(named) == self.facts.n_classes else tuple(map(str, range(self.facts.n_classes)))

    def as_csv(self, probabilities: np.ndarray) -> str:
        """A table: bag (a running number), the probability of each class, predicted."""
        rows = [[n, *(f"{v:.6f}" for v in p), self.classes[p.argmax()]] for n, p in enumerate(probabilities)]
        return _csv(["bag", *self.classes, "predicted"], rows)


def instances_as_csv(dataset: Dataset, scores: np.ndarray) -> str:
    """A table: instance (a running number), its bag, its score, and where it lies, if that is known."""
    places = dataset.coordinates if dataset.coordinates is not None else np.empty((len(scores), 0))
    rows = [[n, bag, f"{s:.6g}", *at] for n, (bag, s, at) in enumerate(zip(dataset.bags, scores, places, strict=True))]
    return _csv(["instance", "bag", "score", *"xyz"[: places.shape[1]]], rows)


def _csv(header: list, rows: list[list]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
