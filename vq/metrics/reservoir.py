"""A random sample of a set's features that does not depend on how the set is divided into batches and ranks."""

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from vq import distributed
from vq.metrics.base import Images, MetricPart, set_to_zero, sum_over_ranks
from vq.metrics.sets import FeatureSummary
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.images import to_uint8
from vq.ops.keyed import generator


def image_keys(image: UInt8[Tensor, "b c h w"]) -> Int64[Tensor, "b"]:
    """Hashes images to integers that depend on their pixels alone: equal images have equal keys.

    Example:
        >>> a, b = image_keys(torch.tensor([[[[1, 2]]], [[[2, 1]]]], dtype=torch.uint8)).tolist()
        >>> a == b
        False
    """
    flat = image.flatten(1).long()
    draws = generator("image keys")
    weights = torch.randint(-(2**62), 2**62, (flat.shape[1],), generator=draws).to(image.device)
    return (flat * weights).sum(dim=1)  # overflow wraps around, as is common for hashes


class FeatureReservoir(MetricPart):
    """Keeps the features of the images with the smallest keys.

    Memory is at most twice `capacity` feature vectors per rank, and during `sync` once that from every rank.

    Args:
        capacity: The maximum number of images to keep, at least 2.

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
        self._num_held = 0

    def add(self, keys: Int64[Tensor, "b"], features: Float32[Tensor, "b size"]) -> None:
        """Adds the features of images with the given keys."""
        self._parts.append((keys, features))
        self._num_held += len(keys)
        if self._num_held > 2 * self.capacity:
            self._shrink()

    def sync(self) -> None:
        """Combines the features of all ranks. Every rank must have added a batch, which may be empty."""
        self._shrink()
        keys, features = self._parts[0]
        self._parts = [(distributed.all_gather_cat(keys), distributed.all_gather_cat(features))]
        self._shrink()

    def reset(self) -> None:
        """Discards all features."""
        self._parts, self._num_held = [], 0

    def result(self) -> Float32[Tensor, "kept size"]:
        """Returns the kept features on the CPU, in the order of their keys."""
        self._shrink()
        return self._parts[0][1].cpu() if self._parts else torch.zeros(0, 0)

    def _shrink(self) -> None:
        if not self._parts:
            return
        keys, features = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        order = torch.argsort(keys, stable=True)[: self.capacity]
        self._parts = [(keys[order], features[order])]
        self._num_held = len(order)


class TwoReservoirs(FeatureSummary):
    """Keeps random samples of the `pool` features of a set of images and of the real images it is compared with.

    The originals decide which reconstructions are kept, so that reconstructions and originals are kept in pairs.

    Args:
        network: The network whose features are kept.
        capacity: The maximum number of images to keep on each side, at least 2.

    Raises:
        ValueError: If `capacity` is below 2.
    """

    num_real: Tensor

    def __init__(self, *, network: FeatureNetwork, capacity: int) -> None:
        super().__init__()
        self.found, self.real = FeatureReservoir(capacity=capacity), FeatureReservoir(capacity=capacity)
        self.size, self.capacity = network.sizes["pool"], capacity
        self.register_buffer("num_real", torch.zeros((), dtype=torch.int64), persistent=False)

    def add(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the features of reconstructed or generated images."""
        self.found.add(image_keys(to_uint8(sample_by)), features)

    def add_real(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the features of real images."""
        self.num_real += len(features)
        self.real.add(image_keys(to_uint8(sample_by)), features)

    def reset(self) -> None:
        """Discards all features."""
        self.found.reset()
        self.real.reset()
        set_to_zero(self)

    def sync(self) -> None:
        """Combines the features of all ranks; a rank may have none."""
        device = self.num_real.device
        for side in (self.found, self.real):
            side.add(
                torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, self.size, device=device)
            )
            side.sync()
        sum_over_ranks(self)

    def result(self) -> tuple[Float32[Tensor, "found size"], Float32[Tensor, "real size"]]:
        """Returns the kept features of both sides, on the CPU."""
        return self.found.result(), self.real.result()

    def stamp(self, num_images: int) -> dict[str, str | int | None]:
        """Returns the numbers of images that are compared, and the reference."""
        num_real = int(self.num_real)
        stamp: dict[str, str | int | None] = {"num_compared": min(num_images, self.capacity)}
        if num_real != num_images:
            stamp["reference_compared"] = min(num_real, self.capacity)
        return stamp | {"reference": "the images of the same pass", "reference_images": num_real}
