"""The one gradient loop: whatever is learned, it goes down this way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from metamed.methods import Plan
from metamed.training.precision import autocast


def learn(
    model: nn.Module,
    plan: Plan,
    setting: dict,
    n: int,
    batch_loss: Callable[[np.ndarray, torch.Generator], torch.Tensor],
    validation_loss: Callable[[], float],
    *,
    generator: torch.Generator,
    device: torch.device,
    precision: str,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[float, ...]:
    """Lower a loss over `n` training samples by the plan's groups. `model` ends as it was after the epoch of the least
    validation loss; returned is that loss after every epoch.

    setting: learning_rate, epochs, batch_size, weight_decay. batch_loss(indices, generator), under autocast: the loss
    of these samples. validation_loss(): a float; the model is then in evaluation mode or not, as it likes.
    progress(epoch, epochs, loss). Stops early after half of the epochs (at least 5) without improvement, counted from
    when all groups learn. Raises FloatingPointError if the validation loss is not finite.
    """
    release(plan, math.inf)
    optimiser = optimiser_of(plan.groups, setting)
    epochs, per_epoch = setting["epochs"], max(1, round(n / setting["batch_size"]))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _learning_rate(step, epochs * per_epoch, max(1, per_epoch * epochs // 10))
    )
    losses, best, patience, last = [], None, max(5, epochs // 2), max(first for _, _, first in plan.groups)
    for epoch in range(epochs):
        release(plan, epoch)
        set_training(model)
        for batch in batches(n, setting["batch_size"], generator):
            with autocast(device, precision):
                value = batch_loss(batch, generator)
            descend(optimiser, value)
            schedule.step()
        losses.append(_finite(validation_loss()))
        if progress:
            progress(epoch + 1, epochs, losses[-1])
        if losses[-1] == min(losses):
            best = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if epoch - max(int(np.argmin(losses)), last) >= patience:
            break
    model.load_state_dict(best)
    model.eval()
    return tuple(losses)


def _finite(value: float) -> float:
    if not np.isfinite(value):
        raise FloatingPointError("training diverged: the validation loss is not finite. Lower the learning rate")
    return value


def set_training(model: nn.Module) -> None:
    """Training mode, except for frozen modules: their batch statistics must stay as the source left them."""
    for module in model.modules():
        own = list(module.parameters())
        module.training = not own or any(p.requires_grad for p in own)


def release(plan: Plan, epoch: float) -> None:
    """Let every group learn whose first epoch has come, and freeze the rest."""
    plan.module.requires_grad_(False)
    for parameters_, _, first in plan.groups:
        for parameter in parameters_:
            parameter.requires_grad_(first <= epoch)


def optimiser_of(groups: tuple, setting: dict) -> torch.optim.Optimizer:
    options = [{"params": list(p), "lr": setting["learning_rate"] * factor} for p, factor, _ in groups]
    return torch.optim.AdamW(options, weight_decay=setting["weight_decay"])


def _learning_rate(step: int, steps: int, warm: int) -> float:
    """One linear warm-up, then cosine decay to zero; as a factor."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + np.cos(np.pi * (step - warm) / max(steps - warm, 1)))


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """Random batches of nearly equal size: never a last one of a single image, which batch statistics cannot take."""
    return iter(np.array_split(torch.randperm(n, generator=generator).numpy(), max(1, round(n / size))))


def descend(optimiser: torch.optim.Optimizer, value: torch.Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    optimiser.step()
