"""Features of a batch, computed once however many metrics ask for them."""

from collections.abc import Iterable

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from vq.metrics.base import Images, Metric
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.images import to_uint8

_KEPT = 2  # the images of a batch, and their reconstructions


class BatchFeatures(nn.Module):
    """Turns images into a network's features, and remembers those of the last two tensors it saw.

    Metrics that hold the same one share each forward of the network (`share_features`). The images are
    rounded to bytes first; the features of an image that has NaN or infinity are NaN, not a black image's.

    Args:
        network: Frozen.
    """

    def __init__(self, *, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network
        self._seen: list[tuple[Tensor, int, dict[str, Tensor]]] = []

    def forward(self, image: Images) -> dict[str, Float32[Tensor, "b size"]]:
        """Images in [-1, 1] to features by kind."""
        version = _version(image)
        for seen, at, features in self._seen:
            # The tensor itself is kept, so no other one can have its place; its version says if it changed.
            if seen is image and at == version:
                return features
        features = self.network(to_uint8(image))
        is_finite = torch.isfinite(image).flatten(1).all(dim=1, keepdim=True)
        features = {kind: torch.where(is_finite, value, torch.nan) for kind, value in features.items()}
        self._seen = [*self._seen, (image, version, features)][-_KEPT:]
        return features

    def forget(self) -> None:
        """Lets go of the remembered batch."""
        self._seen = []


def share_features(metrics: Iterable[Metric]) -> None:
    """Lets metrics whose networks are equal hold one network between them: one forward a batch serves all.

    Two networks are equal if their stamps are. Metrics without a network are left as they are.

    Args:
        metrics: Changed in place; the first of each kind gives its network to the others.
    """
    owners: dict[tuple[tuple[str, str | int | None], ...], BatchFeatures] = {}
    for metric in metrics:
        features = getattr(metric, "features", None)
        if isinstance(features, BatchFeatures):
            key = tuple(sorted(features.network.stamp().items()))
            metric.features = owners.setdefault(key, features)


def score_name(network: FeatureNetwork, official: str, other: str) -> str:
    """The name of a score: the field's for the published FID network, else one that names the network.

    Args:
        network: What the features are of.
        official: Such as `fid`.
        other: Such as `frechet`, which becomes `frechet[NAME]`.
    """
    return official if network.is_official else f"{other}[{network.name}]"


def _version(image: Tensor) -> int:
    # Tensors made in inference mode keep no count of their changes.
    return -1 if image.is_inference() else image._version
