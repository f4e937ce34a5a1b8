"""A fair sample of a set's features, the same one however the set is cut into batches and ranks."""

from typing import Literal

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from vq import distributed
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.images import to_uint8
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
        return self._parts[0][1].cpu() if self._parts else torch.zeros(0, 0)

    def _shrink(self) -> None:
        if not self._parts:
            return
        keys, features = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        order = torch.argsort(keys, stable=True)[: self.capacity]
        self._parts = [(keys[order], features[order])]
        self._held = len(order)


class TwoReservoirs(nn.Module):
    """Keeps fair samples of the features of two sets: the pictures that were made, and the real ones.

    Reconstructions and originals are kept in pairs, as the originals decide for both.

    Args:
        network: Of the features; `pool` is kept.
        capacity: How many images of a side, at least 2.

    Raises:
        ValueError: If `capacity` is below 2.
    """

    real_images: Tensor

    def __init__(self, *, network: FeatureNetwork, capacity: int) -> None:
        super().__init__()
        self.made, self.real = FeatureReservoir(capacity=capacity), FeatureReservoir(capacity=capacity)
        self.size, self.capacity = network.sizes["pool"], capacity
        self.register_buffer("real_images", torch.zeros((), dtype=torch.int64), persistent=False)

    def add(
        self,
        side: Literal["made", "real"],
        features: Float32[Tensor, "b size"],
        decides: Float[Tensor, "b 3 h w"],
    ) -> None:
        """Adds some pictures' features; the pixels of `decides`, in [-1, 1], decide which are kept."""
        if side == "real":
            self.real_images += len(features)
        (self.made if side == "made" else self.real).add(image_keys(to_uint8(decides)), features)

    def reset(self) -> None:
        """Forgets all images."""
        self.made.reset()
        self.real.reset()
        self.real_images.zero_()

    def sync(self, *, device: torch.device) -> None:
        """Joins those of all ranks; every rank must call it, once."""
        for side in (self.made, self.real):
            side.sync(torch.zeros(0, self.size, device=device))
        self.real_images.copy_(distributed.all_reduce_sum(self.real_images))

    def result(self) -> tuple[Float32[Tensor, "made size"], Float32[Tensor, "real size"]]:
        """The kept features of both sides, on the CPU."""
        return self.made.result(), self.real.result()

    def stamp(self, num_made: int) -> dict[str, str | int | None]:
        """How many pictures are compared with how many real ones, and what those are."""
        num_real = int(self.real_images)
        stamp: dict[str, str | int | None] = {"num_compared": min(num_made, self.capacity)}
        if num_real != num_made:
            stamp["reference_compared"] = min(num_real, self.capacity)
        return stamp | {"reference": "the images of the same pass", "reference_images": num_real}
