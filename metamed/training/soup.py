"""Weight averaging: one network out of several of the same architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from metamed.training.weights import Model


def averaged(models: Sequence[Model], x: np.ndarray, batch_size: int = 64) -> Model:
    """A model with the mean of the weights; its batch statistics are taken anew from images x (n, C, s, s)."""
    model, states = deepcopy(models[0]), [m.state_dict() for m in models]
    mean = {k: torch.stack([s[k] for s in states]).mean(0) for k, v in states[0].items() if v.is_floating_point()}
    model.load_state_dict(states[0] | mean)
    on = model.mean.device
    update_bn((torch.from_numpy(part).to(on) for part in np.array_split(x, max(1, round(len(x) / batch_size)))), model)
    return model.eval()


def soup(models: Mapping[str, Model], score: Callable[[Model], float], x: np.ndarray) -> tuple[Model, list[str]]:
    """The greedy soup of models and which of them are in it (Wortsman et al., 2022).

    Best first by `score`, more is better; each joins if the mean of the weights then scores no less than before.
    """
    scores = {name: score(model) for name, model in models.items()}
    first, *others = sorted(models, key=lambda name: (-scores[name], name))
    best, kept, top = models[first], [first], scores[first]
    for name in others:
        tried = averaged([models[n] for n in (*kept, name)], x)
        if (value := score(tried)) >= top:
            best, kept, top = tried, [*kept, name], value
    return best, kept
