"""What the training steps share: rates, micro-batches, averages over ranks, the move itself."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.engine.schedules import Schedule
from vq.quantizers import Annealing, Quantizer, accumulate


class Mover:
    """Moves an optimizer's parameters: rates by the schedule, clipping, the move.

    Args:
        optimizer: Over the parameters; its rates are those of factor 1.
        schedule: The factor of the learning rates.
        max_gradient_norm: The gradient's 2-norm is clipped to this; None to leave it.
    """

    def __init__(
        self, *, optimizer: Optimizer, schedule: Schedule, max_gradient_norm: float | None = None
    ) -> None:
        self.optimizer, self.schedule, self.max_gradient_norm = optimizer, schedule, max_gradient_norm
        self.base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]

    def prepare(self, step: int) -> None:
        """Sets the rates of a step, and drops the gradients of the one before."""
        factor = self.schedule.factor(step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)

    def move(self) -> dict[str, Tensor]:
        """Takes the step; returns the gradient's norm before clipping, and the rate of the first group."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_gradient_norm or float("inf"))
        self.optimizer.step()
        rate = torch.tensor(self.optimizer.param_groups[0]["lr"])
        return {"gradient_norm": norm.detach(), "learning_rate": rate}


def restore_optimizer(optimizer: Optimizer, state: object) -> None:
    """Continues from an optimizer's `state_dict`, whatever the layout of the weights that it was saved with.

    Fused optimizers pair the numbers of a weight and of its moments in the order in which they lie in memory.
    """
    optimizer.load_state_dict(state)  # type: ignore[arg-type]
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            is_one_each = isinstance(value, Tensor) and value.shape == parameter.shape
            if is_one_each and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def check_weights(weights: Mapping[str, float], terms: Iterable[str]) -> None:
    """Refuses a loss without a weight, or a weight without a loss."""
    terms = list(terms)
    if set(weights) != set(terms):
        raise ValueError(f"weights: expected one for each of {terms}, got {list(weights)}")


def check_annealing(quantizer: Quantizer, annealing: Mapping[str, Annealing]) -> None:
    """Refuses to change what the quantizer does not have."""
    for name in annealing:
        if not isinstance(getattr(quantizer, name, None), float):
            raise ValueError(f"annealing: {type(quantizer).__name__} has no number {name!r} to change")


def collecting(model: nn.Module, forward: nn.Module) -> AbstractContextManager[object]:
    """For a micro-batch before the last: inside, gradients stay on their rank, and codebooks only count."""
    stack = ExitStack()
    stack.enter_context(accumulate(model))
    if isinstance(forward, DistributedDataParallel):
        stack.enter_context(forward.no_sync())
    return stack


def add_share(sums: dict[str, Tensor], scalars: Mapping[str, Tensor], share: float) -> None:
    """Adds a micro-batch's scalars to the step's means."""
    for name, value in scalars.items():
        sums[name] = sums.get(name, torch.zeros_like(value)) + value * share


@torch.no_grad()
def mean_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors' means over the ranks, in one message."""
    if distributed.world_size() == 1:
        return list(tensors)
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    mean = distributed.all_reduce_sum(flat) / distributed.world_size()
    parts = torch.split(mean, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients by their means over the ranks."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and distributed.world_size() > 1:
        torch._foreach_copy_(gradients, mean_over_ranks(gradients))
