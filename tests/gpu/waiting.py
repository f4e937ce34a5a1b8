"""Finds where the host waits for the device: by CUDA itself, or on the meta device, which has no values to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MADE_ON_THE_HOST = (torch.tensor, torch.as_tensor, torch.asarray)
COPIES = (Tensor.to, Tensor.copy_, Tensor.cuda)


class WaitingError(AssertionError):
    """A copy from the host for which CUDA would wait."""


class NoBlockingCopies(TorchFunctionMode):
    """Raises for copies from the CPU to another device that wait; `torch.tensor(..., device=...)` is one of them.

    Reading a value needs no check: on the meta device `item`, `nonzero` and a mask as an index raise by themselves.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.device.type == "cpu":
            return result
        if func in MADE_ON_THE_HOST and not isinstance(args[0], Tensor):
            raise WaitingError(
                f"{func.__name__} copies a value from the host; use torch.full, or a kept buffer"
            )
        given = [arg for arg in args if isinstance(arg, Tensor) and arg.device.type == "cpu"]
        if func in COPIES and given and not kwargs.get("non_blocking", False):
            raise WaitingError(f"{func.__name__} copies from the host; give non_blocking=True")
        return result


@contextmanager
def without_waiting(device: str) -> Iterator[None]:
    """Inside, whatever would make the host wait for the device raises.

    Args:
        device: `cuda`, or `meta` on a machine without a GPU.
    """
    if device == "meta":
        with NoBlockingCopies():
            yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
