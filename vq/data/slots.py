"""Memory in which worker processes hand over the images of their batches."""

import mmap
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias, cast
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from vq.data.sample import Batch

Images: TypeAlias = UInt8[Tensor, "b channels h w"] | Float32[Tensor, "b channels h w"]
"""The images of a batch."""

_open_slots: "WeakValueDictionary[int, BatchSlots]" = WeakValueDictionary()
_numbers = count()


class BatchSlots:
    """Memory for a fixed number of batches, which a process shares with the workers that it forks.

    PyTorch would put each batch into new shared memory. To allocate and map it can take more than half as long as
    decoding the batch from JPEGs of 256 pixels, and to pass its descriptor, the two processes exchange messages for
    each tensor. Here the worker copies the images into a slot, and the main process copies them from there. Slots are
    used in turn, so there must be more of them than batches that are prefetched.

    Args:
        num_slots: The number of slots.
        num_bytes: The size of a slot. A batch that is larger is passed as PyTorch does.
    """

    def __init__(self, num_slots: int, num_bytes: int) -> None:
        self._slots = [
            torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=torch.uint8) for _ in range(num_slots)
        ]
        self._num_bytes = num_bytes
        self._number = next(_numbers)
        _open_slots[self._number] = self

    def put(self, number: int, batch: Batch) -> dict[str, Any]:
        """Moves the tensors of a batch to where the main process can read them; this runs in a worker.

        Args:
            number: The number of the batch, which determines its slot.
            batch: The batch; afterwards, `taken` restores it.
        """
        packed: dict[str, Any] = dict(batch)
        image = batch["image"]
        if 0 < image.nbytes <= self._num_bytes:
            slot = number % len(self._slots)
            self.images(slot, image.shape, image.dtype).copy_(image)
            packed["image"] = _InSlot(self._number, slot, tuple(image.shape), image.dtype)
        packed["label"] = batch["label"].tolist()  # a tensor would be passed in shared memory of its own
        return packed

    def images(self, slot: int, shape: Sequence[int], dtype: torch.dtype) -> Images:
        """Returns the images in a slot, as a view that the next batch in this slot overwrites."""
        size = dtype.itemsize
        for side in shape:
            size *= side
        return self._slots[slot][:size].view(dtype).view(*shape)


class _InSlot(NamedTuple):
    """The position of a batch's images, which a worker sends instead of the images."""

    slots: int
    slot: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def images(self) -> Images:
        """Copies the images from the slot; this runs in the main process."""
        return _open_slots[self.slots].images(self.slot, self.shape, self.dtype).clone()

    def pin_memory(self) -> Images:
        """Copies the images to pinned memory; PyTorch calls it in a thread of its own."""
        return _open_slots[self.slots].images(self.slot, self.shape, self.dtype).pin_memory()


def taken(packed: dict[str, Any]) -> Batch:
    """Restores a batch that a worker has packed with `BatchSlots.put`, independent of its slot."""
    image = packed["image"]
    label = torch.tensor(packed["label"], dtype=torch.int64, device="cpu")
    restored = {"image": image.images() if isinstance(image, _InSlot) else image, "label": label}
    return cast("Batch", packed | restored)
