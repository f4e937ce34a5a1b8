"""The interface of a strategy: how the ranks of a training share one model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from torch import nn
from torch.optim import Optimizer


class Strategy(ABC):
    """Spreads the training of a model over the ranks.

    Whatever the strategy, every rank works on its own images, the gradients are averaged over the ranks once per
    optimizer step, and the quantizers are the same on every rank.

    Attributes:
        is_sharded: Whether a rank holds only its part of the parameters. All ranks are then needed to read them, and
            the model may be called only through `forward`, or inside `whole`.
    """

    is_sharded: ClassVar[bool]

    @abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """Prepares a model in place, with the weights of rank 0 on every rank; its parameters may be replaced.

        Returns:
            What a training step calls instead of the model, so that the backward pass averages the gradients.
        """

    @abstractmethod
    def collecting(self, forward: nn.Module) -> AbstractContextManager[object]:
        """The context of a micro-batch before the last: the ranks exchange no gradients.

        Args:
            forward: What `wrap` has returned.
        """

    def not_averaged(self, model: nn.Module) -> Sequence[nn.Parameter]:
        """The parameters of a wrapped model whose gradients the backward pass does not average."""
        return []

    def divided(self, model: nn.Module) -> Sequence[nn.Parameter]:
        """The parameters of a model of which `wrap` leaves a rank only a part."""
        return []

    @abstractmethod
    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuses an optimizer that would not compute the same under this strategy.

        Raises:
            ConfigError: With the names of those that would.
        """

    def part(self, num_ranks: int) -> float:
        """The part of each divided parameter that one of `num_ranks` ranks holds.

        Raises:
            ConfigError: If this number of ranks cannot divide a model.
        """
        return 1.0

    @abstractmethod
    def whole(self, model: nn.Module) -> AbstractContextManager[object]:
        """The context in which a wrapped model is called without communication, for example to validate it."""
