"""What a kept run says of new images, and the run's model as a file for other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from metamed import training
from metamed.dataset import Images
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.experiments import run_of, sources_of
from metamed.jobs import is_probe, own, setting_of, side_of, weights_file
from metamed.methods import Shape, get_method
from metamed.records import Run, Setup, Source
from metamed.sources import find_weights, frozen
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.training.answers import NetworkAnswer, ProbeAnswer, write_onnx, write_safetensors

INPUTS = {"uint8": np.uint8, "float": np.float32}  # types of the images that an exported model may take
FORMATS = (".onnx", ".safetensors")


@dataclass(frozen=True)
class Predictor:
    """A run whose weights were kept, ready to answer.

    facts: the dataset that it learned from. answer: a torch module, images B x C x side x side, uint8 or float in 0-1
    -> probabilities B x K.
    """

    run: Run
    setup: Setup
    facts: DatasetFacts
    side: int
    answer: Any

    @classmethod
    def of(cls, run: Run | str, store: Store, *, device: str = "cpu", download: bool = False) -> Predictor:
        """The predictor of a run (or its id) by the weights that the store kept.

        Raises MetamedError where none were kept: it says how to make them.
        """
        run = run_of(run, store) if isinstance(run, str) else run
        setup, facts = store.get(run.setup), store.dataset(store.get(run.task).digest)
        if facts.kind == "mil":
            raise NotApplicable(f"run {run.id[:12]} learned from bags, not from single images: see BagPredictor")
        sources = sources_of(run, setup, store)
        side = side_of(setup, facts.height or 1, facts.width or 1)
        try:
            if is_probe(setup):
                answer = cls._of_probe(run, setup, facts, sources, store, device, download)
            else:
                answer = cls._of_networks(run, setup, facts, side, sources, store)
        except UnknownName as error:
            if "artifact" not in str(error):
                raise
            raise MetamedError(f"run {run.id[:12]} kept no weights. Make them: metamed run --from {run.id[:12]} "
                               f"--dataset {facts.name} --keep") from None  # fmt: skip
        return cls(run, setup, facts, side, answer.to(training.pick_device(device)).eval())

    @classmethod
    def _of_networks(
        cls, run: Run, setup: Setup, facts: DatasetFacts, side: int, sources: Sequence[Source], store: Store
    ) -> Any:
        """The run's network; of an ensemble, its members with their weights."""
        try:
            members = json.loads(store.artifact(run, "ensemble.json").read_text())
        except UnknownName:
            members = {"": 1.0}
        models = network_models(run, setup, facts, side, sources, store, members)
        return NetworkAnswer(models, list(members.values()), multi_label=_multi_label(facts))

    @classmethod
    def _of_probe(
        cls, run: Run, setup: Setup, facts: DatasetFacts, sources: Sequence[Source], store: Store, device: str,
        download: bool,
    ) -> Any:  # fmt: skip
        """The run's frozen encoders and the classifier that was fitted on them."""
        from metamed.flows.heads import head_from

        head = head_from(training.read_weights(store.artifact(run, "probe.safetensors")))
        size = setting_of(setup)["image_size"]
        weights = [find_weights(source, store, download=download) for source in sources]
        encoders = [frozen(s, p, facts.n_channels, size, device) for s, p in zip(sources, weights, strict=True)]
        return ProbeAnswer(encoders, head)

    @property
    def multi_label(self) -> bool:
        return _multi_label(self.facts)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes (or labels) as the dataset had them, else their numbers."""
        named = self.facts.card.classes
        return named if len(named) == self.facts.n_classes else tuple(map(str, range(self.facts.n_classes)))

    def __call__(self, images: Images) -> np.ndarray:
        """Probabilities (n, K), float32, of images of the same channels; other sizes are resized.

        Raises NotApplicable for images that do not fit what the run learned from.
        """
        self._check(images)
        blocks = np.array_split(np.arange(len(images)), max(1, len(images) // 1000))
        parts = [training.load_images(images, block, self.side) for block in blocks]
        return np.concatenate([training.logits_of(self.answer, part, 16) for part in parts])

    def _check(self, images: Images) -> None:
        need, about = self.facts.n_channels, f"run {self.run.id[:12]} ({self.setup.label}, on {self.facts.name})"
        if len(images.shape) != 4:
            raise NotApplicable(f"{about} takes 2-D images, not items of shape {tuple(images.shape[1:])}")
        if images.shape[1] != need:
            raise NotApplicable(f"{about} takes images of {need} channel{'s' * (need != 1)}, not {images.shape[1]}")

    def remark(self, images: Images) -> str:
        """What is worth knowing before these images are believed: one line, or nothing."""
        height, width = images.shape[2:]
        if (height, width) == (self.facts.height, self.facts.width):
            return ""
        learned = f"{self.facts.height}x{self.facts.width}"
        return f"images of {height}x{width} pixels, but the run learned from {learned}; both become {self.side}"

    def as_csv(self, probabilities: np.ndarray) -> str:
        """A table: sample (a running number), the probability of each class, predicted (labels with `;`)."""
        text = StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["sample", *self.classes, "predicted"])
        for n, p in enumerate(probabilities):
            rows.writerow([n, *(f"{value:.6f}" for value in p), self._predicted(p)])
        return text.getvalue()

    def _predicted(self, p: np.ndarray) -> str:
        if self.multi_label:
            return ";".join(name for name, value in zip(self.classes, p, strict=True) if value >= 0.5)
        return self.classes[int(p.argmax())]

    def export(self, path: str | Path, images: str = "uint8") -> None:
        """Write the model to .onnx (preprocessing and probabilities inside) or .safetensors (its tensors).

        images: uint8, or float in 0-1. The file's metadata says classes, side, channels, setup and run.
        """
        path = as_model_file(path, images)
        if path.suffix == ".safetensors":
            write_safetensors(self.answer.state_dict(), path, self.about())
            return
        example = np.zeros((2, self.facts.n_channels, self.side, self.side), INPUTS[images])
        write_onnx(self.answer, {"images": example}, ["probabilities"], ["n"], path, self.about() | {"images": images})

    def about(self) -> dict[str, str]:
        """What a file of the model has to say of itself, in words."""
        own = {"multi_label": str(self.multi_label), "side": str(self.side)}
        return about(self.run, self.setup, self.facts, self.classes) | own


def as_model_file(path: str | Path, images: str) -> Path:
    """The path, if a model can be written there that takes such images. Raises MetamedError."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise MetamedError(f"{path.name}: a model is written as {' or '.join(FORMATS)}")
    if images not in INPUTS:
        raise UnknownName("type of images", images, INPUTS)
    return path


def about(run: Run, setup: Setup, facts: DatasetFacts, classes: Sequence[str]) -> dict[str, str]:
    """What a file of any model has to say of itself, in words."""
    return {
        "format": "metamed", "run": run.id, "setup": setup.label, "method": setup.method,
        "hyperparameters": json.dumps(setup.hyperparameters), "sources": json.dumps(setup.sources),
        "dataset": facts.name, "classes": json.dumps(classes), "channels": str(facts.n_channels),
    }  # fmt: skip


def _multi_label(facts: DatasetFacts) -> bool:
    return bool(facts.facts.get("multi_label"))


def network_models(
    run: Run, setup: Setup, facts: DatasetFacts, side: int, sources: Sequence[Source], store: Store,
    members: Iterable[str] = ("",),
) -> list[training.Model]:  # fmt: skip
    """The run's networks with their kept weights, of an ensemble by the sources that its members started from."""
    padded = {s.name: training.PREPROCESSING[s.preprocessing][2] for s in sources}
    models = []
    for name in members:
        state = training.read_weights(store.artifact(run, weights_file(name)))
        shape = Shape(len(state["mean"]), (side, side), facts.n_classes)
        net = get_method(setup.method).build(shape, **own(setup, setup.method))
        if padded.get(name, any(padded.values())):
            training.pad_as_tensorflow(net.encoder)
        model = training.Model(net, state["mean"], state["sd"])
        model.load_state_dict(state)
        models.append(model)
    return models
