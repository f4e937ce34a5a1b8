"""A fair sample of a set's features, the same one however the set is cut into batches and ranks."""

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from vq import distributed
from vq.ops.keyed import generator


def image_keys(image: UInt8[Tensor, "b c h w"]) -> Int64[Tensor, "b"]:
    """Images to numbers that depend on their pixels alone and look random: equal images, equal keys.

    Example:
        >>> a, b = image_keys(torch.tensor([[[[1, 2]]], [[[2, 1]]]], dtype=torch.uint8)).tolist()
        >>> a == b
        False
    """
    flat = image.flatten(1).long()
    draws = generator("image keys")
    weights = torch.randint(-(2**62), 2**62, (flat.shape[1],), generator=draws).to(image.device)
    return (flat * weights).sum(dim=1)  # wraps around, which is what a hash wants


class FeatureReservoir(nn.Module):
    """Keeps the features of those images whose keys are smallest; buffers outside the state dict.

    Memory is at most twice `capacity` feature vectors a rank, and at `sync` once that from every rank.

    Args:
        capacity: How many images, at least 2.

    Raises:
        ValueError: If `capacity` is below 2.
    """

    def __init__(self, *, capacity: int) -> None:
        super().__init__()
        if capacity < 2:
            raise ValueError(
                f"FeatureReservoir: expected a capacity of at least 2 images, got {capacity}; take 10000"
            )
        self.capacity = capacity
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._held = 0

    def add(self, keys: Int64[Tensor, "b"], features: Float32[Tensor, "b *size"]) -> None:
        """Adds some images' features."""
        self._parts.append((keys, features))
        self._held += len(keys)
        if self._held > 2 * self.capacity:
            self._shrink()

    def sync(self, like: Float32[Tensor, "none *size"]) -> None:
        """Joins those of all ranks; every rank must call it.

        Args:
            like: An empty batch of features, for a rank that has none.
        """
        self._parts.append((torch.zeros(0, dtype=torch.int64, device=like.device), like))
        self._shrink()
        keys, features = self._parts[0]
        self._parts = [(distributed.all_gather_cat(keys), distributed.all_gather_cat(features))]
        self._shrink()

    def reset(self) -> None:
        """Forgets all images."""
        self._parts, self._held = [], 0

    def result(self) -> Float32[Tensor, "kept *size"]:
        """The kept features, in the order of their keys, on the CPU."""
        self._shrink()
        return self._parts[0][1].cpu()

    def _shrink(self) -> None:
        keys, features = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        order = torch.argsort(keys, stable=True)[: self.capacity]
        self._parts = [(keys[order], features[order])]
        self._held = len(order)
