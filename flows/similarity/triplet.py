"""Triplet network: images close to each other in its output are those that people called alike."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.flows.networks import NETWORKS
from metamed.methods import Believed, Choice, Float, Keep, Quality, Shape, method


@method("similarity", version=1, assessed=True)
def triplet(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*NETWORKS)] = "small_cnn_32x3",
    dimensions: Annotated[int, Choice(2, 8, 32, 128)] = 32,
    dropout: Annotated[float, Float(0.0, 0.7)] = 0.0,
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
) -> nn.Module:
    """An encoder and a linear layer to an embedding, learned by the soft-margin triplet loss (Hermans et al., 2017).

    The loss is the negative log-likelihood of answers that prefer the nearer image with probability σ(difference of
    the two Euclidean distances). keep: whose answers count (`metamed.methods.Believed`).
    """
    net = Classifier(encoder(shape, network), dimensions, dropout)
    net.believed = Believed("triplets", keep, minimum_quality)
    return net
