"""The interface of losses on images."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """Measures how far reconstructions are from their images, as one scalar.

    A loss is unweighted; its weight is set in the config of the train step. Its state dict is empty, because it has
    no state that a checkpoint would need.
    """

    @abstractmethod
    def forward(
        self, reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean loss over a batch of reconstructions and images, both in [-1, 1]."""
