"""What every loss on images is."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """Compares reconstructions with their images and says how far off they are, as one scalar.

    A loss is unweighted; its weight stands in the train step's config. It holds no state of its own
    that a checkpoint would need: its state dict is empty.
    """

    @abstractmethod
    def forward(
        self, reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """Reconstructions and images, both in [-1, 1], to the mean loss over the batch."""
