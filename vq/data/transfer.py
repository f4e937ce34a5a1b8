"""Copies batches to the device that computes with them."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

AnyBatch = TypeVar("AnyBatch", bound=Mapping[str, Any])


class Transfer:
    """Copies the tensors of batches to a device.

    A CUDA device copies from pinned memory on a stream of its own, so that neither the host waits for the copy, nor the
    copy for what the device still computes. The current stream waits for the copy before it goes on. Elsewhere a
    tensor that is already on the device is not copied.

    Args:
        device: Where the tensors go.

    Example:
        >>> Transfer(torch.device("cpu"))({"label": torch.tensor([3]), "key": ["a"]})
        {'label': tensor([3]), 'key': ['a']}
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: AnyBatch) -> AnyBatch:
        """Returns the batch with its tensors on the device, and everything else unchanged."""
        copied = {name: self._copied(value) for name, value in batch.items()}
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return cast("AnyBatch", copied)

    def _copied(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if self._stream is None or value.is_cuda:
            return value.to(self.device, non_blocking=True)
        pinned = value if value.is_pinned() else value.pin_memory()
        with torch.cuda.stream(self._stream):
            copy = pinned.to(self.device, non_blocking=True)
        # The memory of the copy must not be used again before the current stream has read it.
        copy.record_stream(torch.cuda.current_stream(self.device))
        return copy
