"""Self-supervised continuation: the source's network first learns the target's images without labels."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.blocks import Encoder
from metamed.methods import Float, Int, Plan, Shape, WarmUp, method

_WIDTH = 256  # of the projection; the predictor's bottleneck is a quarter of it, as in the paper


class SimSiam(nn.Module):
    """Images -> the loss of two views of each that should tell of one another (Chen & He, 2021)."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.projector = nn.Sequential(
            *_layer(encoder.n_features, _WIDTH),
            nn.Linear(_WIDTH, _WIDTH, bias=False),
            nn.BatchNorm1d(_WIDTH, affine=False),
        )
        self.predictor = nn.Sequential(*_layer(_WIDTH, _WIDTH // 4), nn.Linear(_WIDTH // 4, _WIDTH))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        one, other = (self.projector(self.encoder(view(images))) for _ in range(2))
        alike = F.cosine_similarity(self.predictor(one), other.detach()).mean()
        return -0.5 * (alike + F.cosine_similarity(self.predictor(other), one.detach()).mean())


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]


def view(images: torch.Tensor) -> torch.Tensor:
    """Another look at each image: 30-100 % of its area, mirrored or not, contrast and brightness moved."""
    n = len(images)
    side = images.new_empty(n).uniform_(0.3, 1).sqrt()
    mirror = images.new_empty(n).uniform_(-1, 1).sign()
    affine = images.new_zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = side * mirror, side
    affine[:, :, 2] = (1 - side)[:, None] * images.new_empty(n, 2).uniform_(-1, 1)
    crop = F.grid_sample(images, F.affine_grid(affine, images.shape, align_corners=False), align_corners=False)
    contrast, brightness = images.new_empty(2, n, 1, 1, 1).uniform_(-0.4, 0.4)
    return (crop * (1 + contrast) + brightness).contiguous(memory_format=torch.channels_last)


@method("transfer", version=1)
def simsiam(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    warm_up_epochs: Annotated[int, Int(1, 100)] = 5,
    warm_up_factor: Annotated[float, Float(0.001, 1.0, log=True)] = 0.1,
    encoder_factor: Annotated[float, Float(0.01, 1.0, log=True)] = 1.0,
) -> Plan:
    """The encoder continues on the target's unlabelled images by SimSiam (Chen & He, 2021), then all weights learn.

    The first part lasts `warm_up_epochs` at `warm_up_factor` times the learning rate; the second is `finetune`.
    """
    groups = (list(net.encoder.parameters()), encoder_factor, 0), (list(net.head.parameters()), 1.0, 0)
    return Plan(net, groups, WarmUp(SimSiam(net.encoder), warm_up_epochs, warm_up_factor))
