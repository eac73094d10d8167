"""Runs of similarity tasks: networks that embed images, and metrics on frozen features, learned from triplets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from metamed import training
from metamed.assessments import informative
from metamed.dataset import Dataset, Split
from metamed.errors import MetamedError
from metamed.jobs import Job, Outcome, Way, is_probe, own, setting_of, side_of, weights_file
from metamed.jobs.classification import plan_of
from metamed.judged import Judged, judged, questions
from metamed.methods import Believed, Shape, get_method
from metamed.sources import features_of
from metamed.training.assessed import preferred
from metamed.training.similarity import fit


def run(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """Learn from the training triplets; predictions are the probabilities that the first and that the second candidate
    is the closer one, float32 (n, 2)."""
    if len(job.sources) > 1 and not is_probe(job.setup):
        raise MetamedError(f"a triplet network starts from one source, not {len(job.sources)}")
    return (_metric if is_probe(job.setup) else _network)(job, split, progress)


def truth(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
    """Which of the two candidates was called closer, 0 or 1, int (n,)."""
    return questions(dataset.triplets)[1][samples]


def pack(prediction: np.ndarray) -> np.ndarray:
    return prediction.astype(np.float16)


WAY = Way(run, truth, pack)


def _said(job: Job, split: Split, believed: Believed) -> Judged:
    """The believed answers of the training part."""
    mine = informative(job.dataset.triplets).take(np.array(split.train))
    return judged(replace(job.dataset, triplets=mine), np.arange(len(job.dataset.images)), believed, job.dataset.target)


def _asked(job: Job, samples: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(images that questions show, int (n,); the questions as positions of these, int (m, 3))."""
    rows = questions(job.dataset.triplets)[0][list(samples)]
    index, positions = np.unique(rows, return_inverse=True)
    return index, positions.reshape(-1, 3)


def _both(first: np.ndarray) -> np.ndarray:
    return np.stack([first, 1 - first], axis=1)


def _metric(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """Fit a metric on frozen features; those of several sources stand side by side."""
    x, new = features_of(job.dataset, job.sources, job.weights, setting_of(job.setup)["image_size"], job.features,
                         job.device)  # fmt: skip
    metric = get_method(job.setup.method).build(Shape(x.shape[1], (), 0), **own(job.setup, job.setup.method))
    said = _said(job, split, metric.believed)
    metric.fit(x[said.index], said.triplets, said.weights)
    answers = []
    for part in (split.validation, split.test):
        index, positions = _asked(job, part)
        answers.append(_both(preferred(metric.embed(x[index]), positions)))
    kept = {"probe.safetensors": training.weights_bytes(metric.as_module())} if job.keep_weights else {}
    return Outcome(*answers, metric.as_module, {"precision": "fp32"}, kept, new)


def _network(job: Job, split: Split, progress: Callable | None) -> Outcome:
    side = side_of(job.setup, *job.dataset.images.shape[2:4])

    def load(index: np.ndarray) -> np.ndarray:
        return training.load_images(job.dataset.images, index, side)

    training.seed_everything(job.seed)
    shape = Shape(max(job.dataset.images.shape[1], 3), (side, side), 0)
    net = get_method(job.setup.method).build(shape, **own(job.setup, job.setup.method))
    plan, normalise = plan_of(job, net, shape)
    said, asked = _said(job, split, net.believed), [_asked(job, part) for part in (split.validation, split.test)]
    images = [load(index) for index, _ in asked]
    fitted = fit(plan, load(said.index), said, (images[0], _closer_first(job, split.validation, asked[0][1])),
                 setting=setting_of(job.setup), normalise=normalise, seed=job.seed, device=job.device,
                 precision=job.precision, progress=progress)  # fmt: skip
    answers = [_both(preferred(training.logits_of(fitted.model, x), positions))
               for x, (_, positions) in zip(images, asked, strict=True)]  # fmt: skip
    kept = {weights_file(): training.weights_bytes(fitted.model)} if job.keep_weights else {}
    environment = {"precision": fitted.precision, "epochs": str(len(fitted.losses))}
    return Outcome(*answers, lambda: fitted.model, environment, kept)


def _closer_first(job: Job, samples: tuple[int, ...], positions: np.ndarray) -> np.ndarray:
    """Questions with the candidate that was called closer in the second place, as losses take them."""
    answer = truth(job.dataset, np.array(samples))
    return np.where(answer[:, None] == 1, positions[:, [0, 2, 1]], positions)
