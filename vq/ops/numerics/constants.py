"""Tensors that follow from Python numbers: computed where they are needed, never part of a module.

A buffer outside the state dict has no content after `to_empty`, stays on the meta device after
`load_state_dict(assign=True)`, and is rounded in `module.half()`. A class therefore asks `constant` for what it can
compute from its arguments each time it needs it.
"""

from collections.abc import Callable, Hashable

import torch
from jaxtyping import Shaped
from torch import Tensor

_made: dict[Hashable, Tensor] = {}


def constant(
    make: Callable[..., Shaped[Tensor, "..."]], *args: Hashable, device: torch.device
) -> Shaped[Tensor, "..."]:
    """Returns `make(*args)` on a device, computed once and on the CPU, so that all devices get equal values.

    Results are kept as long as the process lives, because a copy from the CPU waits for a GPU. Do not modify them.

    Args:
        make: Function that returns a tensor, the same for equal arguments.
        *args: Arguments of `make`.
        device: Device of the result.

    Example:
        >>> constant(int64s, 8, 5, device=torch.device("cpu"))
        tensor([8, 5])
    """
    return _compute_once(make, args, device)


def int64s(*numbers: int) -> Shaped[Tensor, "n"]:
    """Returns numbers as an int64 tensor, for `constant`."""
    return torch.tensor(numbers, dtype=torch.int64)


def multiples(count: int, step: int) -> Shaped[Tensor, "count"]:
    """Returns 0, step, 2 step, ... as an int64 tensor, for `constant`."""
    return torch.arange(count, dtype=torch.int64) * step


def _compute_once(make: Callable[..., Tensor], args: tuple[Hashable, ...], device: torch.device) -> Tensor:
    key = (make, args, device)
    if key in _made:
        return _made[key]
    # The default device and the mode of the first caller must not affect later ones.
    with torch.inference_mode(mode=False), torch.no_grad(), torch.device("cpu"):
        result = make(*args).to(device)
    if type(result) is Tensor:  # not a fake tensor, as in torch.export
        _made[key] = result
    return result


# Compiled code contains the tensor, not the code that computes it, which a fused kernel might round differently. This
# is what `torch.compiler.assume_constant_result` sets; calling it would import the compiler, which takes as long as the
# import of torch. A test compares.
vars(_compute_once)["_dynamo_marked_constant"] = True
