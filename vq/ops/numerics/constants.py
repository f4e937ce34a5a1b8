"""Tensors that follow from Python numbers: made where they are needed, never part of a module.

A buffer outside the state dict has no content after `to_empty`, and stays on the meta device after
`load_state_dict(assign=True)`; in `module.half()` it is rounded. What a class can compute from its arguments it
therefore asks `constant` for at each use.
"""

from collections.abc import Callable, Hashable

import torch
from jaxtyping import Shaped
from torch import Tensor

_made: dict[Hashable, Tensor] = {}


def constant(make: Callable[..., Tensor], *args: Hashable, device: torch.device) -> Shaped[Tensor, "..."]:
    """`make(*args)` on a device; computed once, on the CPU, so it is the same on every device. Not to be changed.

    A copy from the CPU waits for a GPU, so results are kept as long as the process lives.

    Args:
        make: A function that returns a tensor, the same for equal arguments.
        args: Its arguments.
        device: Where the result is needed.

    Example:
        >>> constant(int64s, 8, 5, device=torch.device("cpu"))
        tensor([8, 5])
    """
    made: Tensor = _constant(make, args, device)
    return made


def int64s(*numbers: int) -> Shaped[Tensor, "n"]:
    """Numbers as a tensor, to be made by `constant`."""
    return torch.tensor(numbers, dtype=torch.int64)


def multiples(count: int, step: int) -> Shaped[Tensor, "count"]:
    """0, step, 2 step, ...: to be made by `constant`."""
    return torch.arange(count, dtype=torch.int64) * step


# Compiled code gets the tensor itself, not the code that makes it: a fused kernel might round otherwise.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant(make: Callable[..., Tensor], args: tuple[Hashable, ...], device: torch.device) -> Tensor:
    key = (make, args, device)
    if key in _made:
        return _made[key]
    # Neither the default device nor the mode of the first caller is that of the next one.
    with torch.inference_mode(mode=False), torch.no_grad(), torch.device("cpu"):
        result = make(*args).to(device)
    if type(result) is Tensor:  # and not a stand-in, as in torch.export
        _made[key] = result
    return result
