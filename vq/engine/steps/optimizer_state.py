"""Restores the state of an optimizer: moments and counters from a checkpoint, hyperparameters from the config."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.engine.strategies.shards import divided_like


def optimizer_state(optimizer: Optimizer) -> dict[str, object]:
    """The optimizer's `state_dict`, with the full name of its class as `type`."""
    return {**optimizer.state_dict(), "type": _full_name(optimizer)}


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Continues from an optimizer's state: moments and counters are the saved ones, hyperparameters its own.

    Whatever the optimizer's constructor takes (rate, betas, weight decay, ...) stays as the present config says. The
    memory layout of the weights may differ from that of the saved run: moments are copied into the layout of their
    weight, because fused optimizers pair the numbers of both in the order in which they are stored.

    Raises:
        ValueError: If the state is of another optimizer, of other parameters, or lacks what the settings need.
    """
    own, saved = _full_name(optimizer), state.get("type", _full_name(optimizer))
    if saved != own:
        raise ValueError(
            f"the optimizer was {saved} and is now {own}, whose state differs; keep the optimizer, or start a new "
            "run from these weights with --load-model-from"
        )
    names = _hyperparameters(optimizer)
    groups: list[dict[str, object]] = state["param_groups"]
    if len(groups) == len(optimizer.param_groups):  # else torch raises a ValueError
        _check_state(optimizer, state)
        groups = [
            group | {name: value for name, value in own_group.items() if name in names}
            for group, own_group in zip(groups, optimizer.param_groups, strict=True)
        ]
    optimizer.load_state_dict({"state": _divided(optimizer, state), "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            is_per_weight = isinstance(value, Tensor) and value.shape == parameter.shape
            if is_per_weight and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _divided(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The saved moments; this rank's part of those whose parameter is divided among ranks."""
    saved: dict[int, dict[str, Any]] = state["state"]
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = dict(zip(numbers, own, strict=False))  # torch refuses another number of parameters

    def divided(value: Any, number: int) -> Any:
        parameter = parameters.get(number)
        if parameter is None or not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        return divided_like(value, parameter)

    return {
        number: {name: divided(value, number) for name, value in values.items()}
        for number, values in saved.items()
    }


def _full_name(optimizer: Optimizer) -> str:
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def _hyperparameters(optimizer: Optimizer) -> set[str]:
    """The arguments of the constructors of the optimizer's classes; all else in its groups is state."""
    kinds = [kind for kind in type(optimizer).__mro__ if issubclass(kind, Optimizer)]
    return {name for kind in kinds for name in inspect.signature(kind).parameters} - {"params"}


def _check_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Refuses a state without what these settings keep for each parameter, such as `max_exp_avg_sq` of amsgrad."""
    saved: dict[int, dict[str, object]] = state["state"]
    groups: list[dict[str, list[int]]] = state["param_groups"]
    for group, own_group in zip(groups, optimizer.param_groups, strict=True):
        states = [saved[number] for number in group["params"] if number in saved]
        if not states or not own_group["params"]:
            continue
        missing = _state_names(optimizer, own_group) - {name for values in states for name in values}
        if missing:
            raise ValueError(
                f"the optimizer's settings need {', '.join(sorted(missing))}, which the saved state does not have; "
                "set them back, or start a new run from these weights with --load-model-from"
            )


@torch.no_grad()
def _state_names(optimizer: Optimizer, group: Mapping[str, Any]) -> set[str]:
    """The names of what the optimizer keeps for a parameter, found by a step on a parameter of one number."""
    first: Tensor = group["params"][0]
    probe = nn.Parameter(first.new_zeros([1] * first.ndim))
    probe.grad = torch.zeros_like(probe)
    names = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    try:
        small = type(optimizer)([probe], **{n: v for n, v in group.items() if n in names})
        with torch.enable_grad():
            small.step()
    except (TypeError, ValueError, RuntimeError):  # it needs more than a parameter; its first step will tell
        return set()
    return {name for name, value in small.state[probe].items() if value is not None}
