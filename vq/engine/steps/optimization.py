"""What the training steps share: rates, micro-batches, averages over ranks, the move itself."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.engine.steps.schedules import Schedule
from vq.ops.numerics.precision import computed_in
from vq.quantizers import Annealing, Quantizer, accumulate


class Mover:
    """Moves an optimizer's parameters: rates by the schedule, clipping, the move.

    Args:
        optimizer: Over the parameters; its rates are those of factor 1.
        schedule: The factor of the learning rates.
        max_gradient_norm: The gradient's 2-norm is clipped to this; None to leave it.

    Raises:
        ValueError: If `max_gradient_norm` is not above 0.
    """

    def __init__(
        self, *, optimizer: Optimizer, schedule: Schedule, max_gradient_norm: float | None = None
    ) -> None:
        if max_gradient_norm is not None and not max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm: expected a number above 0 or None, got {max_gradient_norm}")
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

    def state_dict(self) -> dict[str, object]:
        """The optimizer's state, and which optimizer it is of."""
        return {**self.optimizer.state_dict(), "type": _full_name(self.optimizer)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See `restore_optimizer`."""
        restore_optimizer(self.optimizer, state)


@dataclass(frozen=True, slots=True)
class Share:
    """What a micro-batch's means are multiplied with, so that a step's gradient is that of the mean over all images.

    The rule: a step lowers the mean over all images (vectors, indices) of all its micro-batches and ranks, however
    unevenly they are cut. Gradients are averaged over the ranks, so a rank that has `n` of the `N` counts `n / N`
    times the number of ranks.

    Attributes:
        local: For a mean over this rank's images.
        common: For a mean over the images of all ranks, such as the loss of a quantizer.
    """

    local: float | Tensor
    common: float | Tensor


def shares_of(counts: Sequence[int], like: Tensor) -> list[Share]:
    """The shares of micro-batches with so many images on this rank; all ranks must have the same number of them.

    Args:
        counts: Of each micro-batch.
        like: With several ranks the shares are tensors of its device, in float64 if it is, else in float32.
    """
    if distributed.world_size() == 1:
        return [Share(count / max(1, sum(counts)), count / max(1, sum(counts))) for count in counts]
    own = torch.tensor(counts, dtype=torch.float64, device=like.device)
    everywhere = distributed.all_reduce_sum(own)
    total = everywhere.sum().clamp_min(1)
    shares = torch.stack([own * distributed.world_size() / total, everywhere / total])
    return [Share(local, common) for local, common in shares.to(computed_in(like.dtype)).unbind(1)]


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, object]) -> None:
    """Continues from an optimizer's state: moments and counters are the saved ones, hyperparameters its own.

    Whatever the optimizer's constructor takes (rate, betas, weight decay, ...) stays as the present config says. The
    layout of the weights may be another than when the state was saved: fused optimizers pair the numbers of a weight
    and of its moments in the order in which they are stored in memory.

    Raises:
        ValueError: If the state is of another optimizer, of other parameters, or lacks what the settings need.
    """
    own, saved = _full_name(optimizer), state.get("type", _full_name(optimizer))
    if saved != own:
        raise ValueError(
            f"the optimizer was {saved} and is now {own}, whose state is another; keep the optimizer, or start a new "
            "run from these weights with --load-model-from"
        )
    names = _hyperparameters(optimizer)
    groups: list[dict[str, object]] = state["param_groups"]  # type: ignore[assignment]
    if len(groups) == len(optimizer.param_groups):  # else torch raises a ValueError
        _check_state(optimizer, state)
        groups = [
            group | {name: value for name, value in mine.items() if name in names}
            for group, mine in zip(groups, optimizer.param_groups, strict=True)
        ]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            is_one_each = isinstance(value, Tensor) and value.shape == parameter.shape
            if is_one_each and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _full_name(optimizer: Optimizer) -> str:
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def _hyperparameters(optimizer: Optimizer) -> set[str]:
    """What the constructors of the optimizer's classes take; all else in its groups is state."""
    kinds = [kind for kind in type(optimizer).__mro__ if issubclass(kind, Optimizer)]
    return {name for kind in kinds for name in inspect.signature(kind).parameters} - {"params"}


def _check_state(optimizer: Optimizer, state: Mapping[str, object]) -> None:
    """Refuses a state without what these settings keep for each parameter, such as `max_exp_avg_sq` of amsgrad."""
    saved: dict[int, dict[str, object]] = state["state"]  # type: ignore[assignment]
    groups: list[dict[str, list[int]]] = state["param_groups"]  # type: ignore[assignment]
    for group, mine in zip(groups, optimizer.param_groups, strict=True):
        there = [saved[number] for number in group["params"] if number in saved]
        if not there or not mine["params"]:
            continue
        missing = _kept_for_each(optimizer, mine) - {name for values in there for name in values}
        if missing:
            raise ValueError(
                f"the optimizer's settings need {', '.join(sorted(missing))}, which the saved state does not have; "
                "set them back, or start a new run from these weights with --load-model-from"
            )


@torch.no_grad()
def _kept_for_each(optimizer: Optimizer, group: Mapping[str, Any]) -> set[str]:
    """The names of what the optimizer keeps for a parameter, found by moving a parameter of one number."""
    first: Tensor = group["params"][0]
    probe = nn.Parameter(first.new_zeros([1] * first.ndim))
    probe.grad = torch.zeros_like(probe)
    names = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    try:
        small = type(optimizer)([probe], **{n: v for n, v in group.items() if n in names})
        with torch.enable_grad():
            small.step()
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ):  # an optimizer with wishes of its own: its first step will tell
        return set()
    return {name for name, value in small.state[probe].items() if value is not None}


def check_weights(weights: Mapping[str, float], terms: Iterable[str]) -> None:
    """Refuses a loss without a weight, or a weight without a loss."""
    terms = list(terms)
    if set(weights) != set(terms):
        raise ValueError(f"weights: expected one for each of {terms}, got {list(weights)}")


def check_annealing(quantizer: Quantizer, annealing: Mapping[str, Annealing]) -> None:
    """Refuses to change what the quantizer does not have, or what is a count and no quantity.

    Raises:
        ValueError: If an attribute is missing, is no real number, or is declared as an integer (`codebook_size`).
    """
    for name in annealing:
        value = getattr(quantizer, name, None)
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ValueError(f"annealing: {type(quantizer).__name__} has no number {name!r} to change")
        if _declared(type(quantizer), name) in (int, "int"):
            raise ValueError(
                f"annealing: {name!r} of {type(quantizer).__name__} is a whole number, which cannot change in training"
            )


def _declared(kind: type, name: str) -> object:
    """The annotation of a constructor's argument or of a class's attribute; None if there is none."""
    argument = inspect.signature(kind).parameters.get(name)
    if argument is not None:
        return argument.annotation
    found = (inspect.get_annotations(base).get(name) for base in kind.__mro__)
    return next((annotation for annotation in found if annotation is not None), None)


@contextmanager
def collecting(model: nn.Module, forward: nn.Module) -> Iterator[None]:
    """For a micro-batch before the last: inside, gradients stay on their rank, and codebooks only count."""
    with ExitStack() as stack:
        stack.enter_context(accumulate(model))
        if isinstance(forward, DistributedDataParallel):
            stack.enter_context(forward.no_sync())
        yield


def add(sums: dict[str, Tensor], scalars: Mapping[str, Tensor]) -> None:
    """Adds a micro-batch's scalars, already multiplied with its share, to the step's."""
    for name, value in scalars.items():
        sums[name] = sums[name] + value if name in sums else value


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
