"""LARS, and the optimizers of PyTorch, all registered so that a config from a file may name them."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)

from vq.registry import OPTIMIZERS

__all__ = [
    "ASGD",
    "LARS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]


class LARS(Optimizer):
    """Momentum SGD in which the learning rate of each parameter is proportional to its norm over its gradient's.

    With the weights w and their gradient g, a step computes

        local = trust * ||w|| / (||g|| + weight_decay * ||w||)
        v = momentum * v + lr * local * (g + weight_decay * w)
        w = w - v

    Source: You, Gitman and Ginsburg 2017, https://arxiv.org/abs/1708.03888, eq. 6 and algorithm 1.
    Differs from the source: `local` is 1 where it would be 0 or 0/0, because weights of 0 would never change; vectors
    are updated as in momentum SGD unless `scales_vectors` is set.

    Args:
        params: Parameters, or groups of them.
        lr: The global learning rate.
        momentum: In [0, 1).
        weight_decay: The factor of the weights that is added to their gradient.
        trust: The trust coefficient, eta in the paper.
        scales_vectors: Whether vectors and scalars (biases, scales of norms) have a local rate and weight decay too.

    Raises:
        ValueError: If `lr` or `weight_decay` is below 0, `trust` is not above 0, or `momentum` is outside [0, 1).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        scales_vectors: bool = False,
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and trust > 0 and 0 <= momentum < 1):
            raise ValueError(
                f"LARS: expected lr and weight_decay of at least 0, trust above 0 and a momentum in [0, 1), got "
                f"lr={lr}, weight_decay={weight_decay}, trust={trust}, momentum={momentum}"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "scales_vectors": scales_vectors,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates the parameters that have a gradient; returns the loss of `closure`, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if weight.ndim > 1 or group["scales_vectors"]:
            decay, norm = group["weight_decay"], weight.norm()
            local = group["trust"] * norm / (gradient.norm() + decay * norm)
            local = torch.where(local.isfinite() & (local > 0), local, 1.0)
            gradient = local * (gradient + decay * weight)
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        weight -= state["velocity"].mul_(group["momentum"]).add_(gradient, alpha=group["lr"])


for _name in __all__:
    OPTIMIZERS.register_module(module=globals()[_name])
