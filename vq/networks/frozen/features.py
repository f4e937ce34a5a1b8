"""What frozen feature networks are: bytes of images to named vectors and a stamp, or images to maps of features."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from vq.networks.frozen.base import FrozenWeights


@runtime_checkable
class FeaturePyramid(Protocol):
    """A frozen network that gives features of an image at several depths; a gradient flows to the image.

    `EfficientNetLite0`, `LPIPSNetwork` and `TimmViTFeatures` are such.

    Attributes:
        channels: Of each map, in the order of `pyramid`.
    """

    channels: tuple[int, ...]

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Images in [-1, 1] to maps of features, the shallowest first."""


def frozen_pyramid(place: str, network: nn.Module) -> tuple[FeaturePyramid]:
    """Freezes a network, in place, and puts it into a tuple.

    As a tuple's item it can be a module's attribute and be outside the module tree: no optimizer, no
    checkpoint and no `.train()` reaches it.

    Args:
        place: The class that takes the network; the error starts with it.
        network: A `FeaturePyramid`.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(network, FeaturePyramid):
        raise TypeError(
            f"{place}: expected a network with pyramid(image) and channels, got {type(network).__name__}; take "
            "EfficientNetLite0, LPIPSNetwork or TimmViTFeatures"
        )
    network.eval().requires_grad_(requires_grad=False)
    return (network,)


class FeatureNetwork(FrozenWeights, ABC):
    """Turns images, as bytes, into feature vectors; frozen, in float32 inside any autocast.

    All weights are `FrozenWeights`. The images are resized inside, so what a feature is
    depends on the class's arguments and the weights alone, which the attributes name.

    Attributes:
        name: Of the network and its weights; scores carry it.
        protocol: Whose rules of resizing and normalising it follows.
        resize: Those rules in words.
        sha256: Of the weights, in hex.
        sizes: The length of each kind of feature; there is always a `pool`.
        is_official: Whether these are the network and the weights that "FID" means.
    """

    name: str
    protocol: str
    resize: str
    sha256: str
    sizes: ClassVar[Mapping[str, int]]
    is_official: bool = False

    @torch.no_grad()
    def forward(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """Images to features by kind; see `sizes`. No gradient flows, and an empty batch is fine."""
        if len(image) == 0:
            return {kind: image.new_zeros((0, n), dtype=torch.float32) for kind, n in self.sizes.items()}
        with torch.autocast(device_type=image.device.type, enabled=False), _full_precision(image):
            return self.features(image)

    @abstractmethod
    def features(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """At least one image to features by kind."""

    def stamp(self) -> dict[str, str | int | None]:
        """What makes two features comparable: protocol, extractor, its sha256 and the resize rule."""
        return {
            "protocol": self.protocol,
            "extractor": self.name,
            "extractor_sha256": self.sha256,
            "resize": self.resize,
        }

    def freeze(self, name: str, tensor: Tensor) -> None:
        """Keeps a tensor in float32 as a buffer outside the state dict."""
        super().freeze(name, tensor.float().contiguous())


@contextmanager
def _full_precision(image: Tensor) -> Iterator[None]:
    """Without TensorFloat-32, whose ten bits move features in the third digit."""
    if not image.is_cuda:
        yield
        return
    places: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
