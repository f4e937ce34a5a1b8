"""The features of a batch, computed once for all metrics."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vq.metrics.base import Images, Metric, MetricPart
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.images import checked_rgb, rgb_view, to_uint8

_CACHE_SIZE = 2  # the images of a batch, and their reconstructions


class BatchFeatures(MetricPart):
    """Computes the features of images, and caches those of the last two tensors.

    Metrics that hold the same object share each forward pass of the network (`share_features`). Images are rounded to
    bytes first. The features of an image with NaN or infinity are NaN, not those of a black image.

    Args:
        network: The feature network.
        rgb: The channels of the images that the network sees as red, green and blue; None for images of 3 channels.
        place: The metric that compares the features. Error messages start with it.

    Raises:
        ChannelsError: If `rgb` is invalid.
    """

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        rgb: Sequence[int] | None = None,
        place: str = "BatchFeatures",
    ) -> None:
        super().__init__()
        self.network, self.rgb, self.place = network, checked_rgb(place, rgb), place
        self._cache: list[tuple[Tensor, int, dict[str, Tensor]]] = []

    def forward(self, image: Images) -> dict[str, Float32[Tensor, "b size"]]:
        """Computes the features of images in [-1, 1], by kind.

        Raises:
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        version = _version(image)
        for cached, at, features in self._cache:
            # The cache holds the tensor itself, so its memory is not reused; the version tells whether it has changed.
            if cached is image and at == version:
                return features
        seen = rgb_view(self.place, image, self.rgb)
        features = self.network(to_uint8(seen))
        is_finite = torch.isfinite(seen).flatten(1).all(dim=1, keepdim=True)
        features = {kind: torch.where(is_finite, value, torch.nan) for kind, value in features.items()}
        self._cache = [*self._cache, (image, version, features)][-_CACHE_SIZE:]
        return features

    def stamp(self) -> dict[str, str | int | None]:
        """Returns the stamp of the network, with the channels that it sees if they are declared."""
        return self.network.stamp() | ({} if self.rgb is None else {"rgb": str(self.rgb)})

    def reset(self) -> None:
        """Empties the cache."""
        self._cache = []

    def sync(self) -> None:
        """Empties the cache, which is no longer needed."""
        self._cache = []


def share_features(metrics: Iterable[Metric]) -> None:
    """Makes metrics with equal feature networks share one of them, so that each batch passes through it once.

    Two networks are equal if their stamps and the channels that they see are. Metrics without a feature network are
    left unchanged.

    Args:
        metrics: The metrics; changed in place. The first one with a network passes it to the others.
    """
    owners: dict[tuple[tuple[str, str | int | None], ...], BatchFeatures] = {}
    for metric in metrics:
        features = getattr(metric, "features", None)
        if isinstance(features, BatchFeatures):
            key = tuple(sorted(features.stamp().items()))
            metric.features = owners.setdefault(key, features)


def score_name(network: FeatureNetwork, official: str, other: str) -> str:
    """Returns the name of a score: the usual name for the published FID network, else one with the network's name.

    Args:
        network: The network whose features are used.
        official: The usual name, such as `fid`.
        other: The name for other networks, such as `frechet`, which becomes `frechet[NAME]`.
    """
    return official if network.is_official else f"{other}[{network.name}]"


def _version(image: Float[Tensor, "..."]) -> int:
    # Tensors made in inference mode have no version counter.
    return -1 if image.is_inference() else image._version
