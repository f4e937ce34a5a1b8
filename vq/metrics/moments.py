"""Sums of features in constant memory, for their means and covariances."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float32, Float64, Shaped
from torch import Tensor, nn

from vq.metrics.base import MetricPart, set_to_zero, sum_over_ranks
from vq.metrics.stamp import Stamp, StatisticsError
from vq.metrics.statistics import ReferenceStatistics
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.frechet import moments
from vq.ops.images import checked_rgb, rgb_view, to_bytes


class MomentSums(MetricPart):
    """Sums vectors and their outer products in float64.

    Args:
        size: The length of a vector.
    """

    total: Tensor
    outer: Tensor
    count: Tensor

    def __init__(self, *, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("total", torch.zeros(size, dtype=torch.float64), persistent=False)
        self.register_buffer("outer", torch.zeros(size, size, dtype=torch.float64), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def add(self, features: Shaped[Tensor, "b size"]) -> None:
        """Adds a batch of vectors."""
        features = features.double()
        self.total += features.sum(dim=0)
        self.outer.addmm_(features.T, features)
        self.count += len(features)

    def sync(self) -> None:
        """Replaces the sums by those over all ranks."""
        sum_over_ranks(self)

    def reset(self) -> None:
        """Discards all vectors."""
        set_to_zero(self)

    def result(self, place: str) -> tuple[Float64[Tensor, "size"], Float64[Tensor, "size size"]]:
        """Computes the mean and covariance, on the CPU.

        Args:
            place: The class that needs them. The error message starts with it.

        Raises:
            StatisticsError: If there are fewer than two vectors.
        """
        count = int(self.count)
        if count < 2:
            raise StatisticsError(
                f"{place}: expected at least two images for a covariance, got {count}; evaluate more images"
            )
        return moments(self.total.cpu(), self.outer.cpu(), count)


class StatisticsCollector(nn.Module):
    """Computes the reference statistics of a set of images, in float64 and constant memory.

    Call `update` for each batch, `sync` once on every rank, and `result`.

    Args:
        network: The network whose `pool` features are summed, and its `spatial` features if it has them.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If `rgb` is invalid.
    """

    def __init__(self, *, network: FeatureNetwork, rgb: Sequence[int] | None = None) -> None:
        super().__init__()
        self.network, self.rgb = network, checked_rgb("StatisticsCollector", rgb)
        self.pool = MomentSums(size=network.sizes["pool"])
        self.spatial = MomentSums(size=network.sizes["spatial"]) if "spatial" in network.sizes else None

    def update(self, image: Shaped[Tensor, "b channels h w"]) -> None:
        """Adds a batch of images with pixels in 0..255, uint8 or float32, which is rounded to bytes.

        Raises:
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        self.add(self.features(image))

    def features(self, image: Shaped[Tensor, "b channels h w"]) -> dict[str, Float32[Tensor, "b _size"]]:
        """Computes what `add` adds for a batch of images.

        Raises:
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        return self.network(to_bytes(rgb_view("StatisticsCollector", image, self.rgb)))

    def add(self, features: Mapping[str, Float32[Tensor, "b _size"]]) -> None:
        """Adds the features of a batch of images."""
        self.pool.add(features["pool"])
        if self.spatial is not None:
            self.spatial.add(features["spatial"])

    def sync(self) -> None:
        """Replaces the sums by those over all ranks; every rank must call it, once."""
        self.pool.sync()
        if self.spatial is not None:
            self.spatial.sync()

    def result(
        self,
        *,
        dataset: str | None = None,
        dataset_sha256: str | None = None,
        preprocessing: str | None = None,
    ) -> ReferenceStatistics:
        """Computes the statistics of all images seen.

        Args:
            dataset: The name of the set.
            dataset_sha256: The SHA-256 of the keys of the images and of their preprocessing, in hexadecimal.
            preprocessing: A description of how the images were processed before the network.

        Raises:
            StatisticsError: If there are fewer than two images.
        """
        mean, covariance = self.pool.result("StatisticsCollector")
        spatial = (None, None) if self.spatial is None else self.spatial.result("StatisticsCollector")
        stamp = Stamp.of(
            self.network,
            num_images=int(self.pool.count),
            dataset=dataset,
            dataset_sha256=dataset_sha256,
            preprocessing=preprocessing,
        )
        return ReferenceStatistics(
            mean=mean,
            covariance=covariance,
            spatial_mean=spatial[0],
            spatial_covariance=spatial[1],
            stamp=stamp,
        )
