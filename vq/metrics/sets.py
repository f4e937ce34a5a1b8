"""The interface of metrics that score a set of images as a whole."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from vq.metrics.base import Images, Metric, MetricPart
from vq.metrics.features import BatchFeatures
from vq.networks.frozen.features import FeatureNetwork


class FeatureSummary(MetricPart):
    """Summarizes the features of a set of images, and those of the real images that they are compared with.

    Attributes:
        needs_real: Whether `add_real` must be called, because the set is compared with real images rather than with
            nothing or with statistics from a file.
    """

    needs_real: bool = True

    @abstractmethod
    def add(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the features of reconstructed or generated images.

        Args:
            features: The features of the images.
            sample_by: The images whose pixels decide which features are kept in a bounded sample.
        """

    @abstractmethod
    def add_real(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the features of real images; it is called only if `needs_real`.

        Args:
            features: The features of the images.
            sample_by: The real images themselves.
        """

    @abstractmethod
    def stamp(self, num_images: int) -> dict[str, str | int | None]:
        """Returns what, besides the network, must be equal for two scores to be comparable.

        Args:
            num_images: The number of reconstructed or generated images.
        """


class SetMetric(Metric):
    """Scores a set of reconstructed or generated images as a whole, by the features of a network.

    Add the images that are scored with `update`, and the real images that they are compared with, if `needs_real`, with
    `update_real`. The numbers of the two may differ, because no image is compared with an original of its own. A
    subclass implements `result`.

    Args:
        network: The network whose features are used.
        kind: The kind of feature: a key of `network.sizes`.
        summary: The summary of the features.
        rgb: The channels that the network sees, as for `BatchFeatures`.
    """

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        kind: str,
        summary: FeatureSummary,
        rgb: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.features = BatchFeatures(network=network, rgb=rgb, place=type(self).__name__)
        self.kind, self.summary = kind, summary

    @property
    def needs_real(self) -> bool:
        """Whether the metric compares with real images, which it must see (`update_real`)."""
        return self.summary.needs_real

    @torch.no_grad()
    def update(self, images: Images, *, sample_by: Images | None = None) -> None:
        """Adds a batch of reconstructed or generated images.

        Args:
            images: The images, in about [-1, 1].
            sample_by: The images whose pixels decide which of `images` belong to a sample: the originals of
                reconstructions, so that samples are pairs. None for `images` themselves.

        Raises:
            RuntimeError: If `sync` was called since the last `reset`.
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        self._count(len(images))
        self.summary.add(self.features(images)[self.kind], images if sample_by is None else sample_by)

    @torch.no_grad()
    def update_real(self, images: Images) -> None:
        """Adds a batch of real images, in [-1, 1]; they are ignored unless `needs_real`.

        Raises:
            RuntimeError: If `sync` was called since the last `reset`.
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        self._check_not_synced()
        if self.needs_real:
            self.summary.add_real(self.features(images)[self.kind], images)

    @abstractmethod
    def result(self) -> dict[str, float]:
        """Computes the scores from the summary of at least one image."""

    def stamp(self) -> dict[str, str | int | None]:
        """Returns what must be equal for two scores to be comparable.

        These are the protocol, the network, the SHA-256 of its weights, the resizing, the numbers of images and the
        reference.
        """
        num_images = int(self.images)
        return self.features.stamp() | {"num_images": num_images} | self.summary.stamp(num_images)
