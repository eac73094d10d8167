"""What a kept run that segments says of new images: a mask for each, at the image's own size."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from metamed.dataset import Images
from metamed.errors import MetamedError
from metamed.jobs import setting_of
from metamed.prediction import Predictor, network_models
from metamed.records import Run, Setup, Source
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.training.tiles import MaskAnswer, segment


class MaskPredictor(Predictor):
    """A run that learned masks, ready to answer.

    answer: a torch module, images B x C x side x side, uint8 or float in 0-1 -> probabilities B x K x side x side.
    """

    @classmethod
    def _of_networks(
        cls, run: Run, setup: Setup, facts: DatasetFacts, side: int, sources: Sequence[Source], store: Store
    ) -> Any:
        (model,) = network_models(run, setup, facts, side, sources, store)
        return MaskAnswer(model, setting_of(setup)["test_flips"])

    @property
    def view(self) -> str:
        """whole: it looks at an image resized to `side`; patch: at tiles of `side` pixels of it."""
        return setting_of(self.setup)["view"]

    def __call__(self, images: Images) -> np.ndarray:
        """The class of each pixel, uint8 (n, H, W), of images of any size and the same channels.

        Beside the answer, memory does not grow with the images' size. Raises NotApplicable for images that do not fit
        what the run learned from.
        """
        self._check(images)
        return segment(self.answer, images, range(len(images)), self.side, self.view)

    def remark(self, images: Images) -> str:
        """What is worth knowing before these masks are believed: one line, or nothing."""
        if self.view == "whole":
            return super().remark(images)
        height, width = images.shape[2:]
        if (height, width) == (self.facts.height, self.facts.width):
            return ""
        return (f"images of {height}x{width} pixels, but the run learned from {self.facts.height}x{self.facts.width}: "
                "structures should be as many pixels wide in both")  # fmt: skip

    def as_csv(self, masks: np.ndarray) -> str:
        """A table: sample (a running number), and each class's share of its pixels."""
        text = StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["sample", *self.classes])
        for n, mask in enumerate(masks):
            shares = np.bincount(mask.ravel(), minlength=len(self.classes)) / mask.size
            rows.writerow([n, *(f"{share:.6f}" for share in shares)])
        return text.getvalue()

    def write(self, masks: np.ndarray, path: Path) -> None:
        """The masks as an array `masks` of an .npz file, class names beside it. Raises MetamedError for other files."""
        if path.suffix != ".npz":
            raise MetamedError(f"{path.name}: masks are written as .npz, a table of their areas as .csv")
        np.savez_compressed(path, masks=masks, class_names=np.array(self.classes))

    def about(self) -> dict[str, str]:
        return super().about() | {"view": self.view, "output": "probabilities of each pixel"}
