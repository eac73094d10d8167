"""Where a kept run that learned from triplets puts new images: near each other if people would call them alike."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np

from metamed import training
from metamed.errors import MetamedError
from metamed.jobs import setting_of
from metamed.prediction import Predictor, network_models
from metamed.records import Run, Setup, Source
from metamed.sources import find_weights, frozen
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.training.answers import ProbeAnswer


class EmbeddingPredictor(Predictor):
    """A run that learned from triplets, ready to embed.

    answer: a torch module, images B x C x side x side, uint8 or float in 0-1 -> coordinates B x E.
    """

    @classmethod
    def _of_networks(
        cls, run: Run, setup: Setup, facts: DatasetFacts, side: int, sources: Sequence[Source], store: Store
    ) -> Any:
        return network_models(run, setup, facts, side, sources, store)[0]

    @classmethod
    def _of_probe(
        cls, run: Run, setup: Setup, facts: DatasetFacts, sources: Sequence[Source], store: Store, device: str,
        download: bool,
    ) -> Any:  # fmt: skip
        from metamed.flows.similarity.metric import Embedded

        state, size = training.read_weights(store.artifact(run, "probe.safetensors")), setting_of(setup)["image_size"]
        encoders = [frozen(source, find_weights(source, store, download=download), facts.n_channels, size, device)
                    for source in sources]  # fmt: skip
        return ProbeAnswer(encoders, Embedded(state["mean"], state["matrix"]))

    @property
    def classes(self) -> tuple[str, ...]:
        raise MetamedError(f"run {self.run.id[:12]} learned from triplets: it knows distances, and no classes")

    def as_csv(self, embedding: np.ndarray) -> str:
        """A table: sample (a running number) and its coordinates; the nearer two samples, the more alike."""
        text = StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["sample", *(f"x{k}" for k in range(embedding.shape[1]))])
        rows.writerows([n, *(f"{value:.6f}" for value in x)] for n, x in enumerate(embedding))
        return text.getvalue()

    def about(self) -> dict[str, str]:
        """What a file of the model has to say of itself, in words."""
        return {
            "format": "metamed", "run": self.run.id, "setup": self.setup.label, "method": self.setup.method,
            "dataset": self.facts.name, "channels": str(self.facts.n_channels), "side": str(self.side),
            "answers": "coordinates: the nearer, the more alike",
        }  # fmt: skip
