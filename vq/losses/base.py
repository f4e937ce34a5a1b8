"""The interface of losses on images."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """Measures how far reconstructions are from their images, as one scalar.

    A loss is unweighted; its weight is set in the config of the train step. If it has parameters, they are trained
    together with the tokenizer; most losses have none.

    Attributes:
        source: What is compared with the image: `"reconstruction"`, `"latent"` or `"quantized"`, or the name of a part
            of the tokenizer whose output is compared.
        uses_autocast: Whether a step may call the loss inside autocast, because only its networks compute in the type
            of autocast, and its own arithmetic does not. All other losses are called outside of it.
    """

    source: str = "reconstruction"
    uses_autocast: ClassVar[bool] = False

    @abstractmethod
    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean loss over a batch of reconstructions and images, both in [-1, 1]."""
