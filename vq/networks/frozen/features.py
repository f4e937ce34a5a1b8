"""The interfaces of frozen feature networks: feature vectors by name, or a pyramid of feature maps."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor, nn

from vq.networks.frozen.base import FrozenWeights


@runtime_checkable
class FeaturePyramid(Protocol):
    """A frozen network that computes feature maps at several depths; gradients flow to the image.

    `EfficientNetLite0`, `LPIPSNetwork` and `TimmViTFeatures` implement it.

    Attributes:
        channels: The number of channels of each map, in the order of `pyramid`.
    """

    channels: tuple[int, ...]

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Computes the feature maps of images in [-1, 1], from the shallowest to the deepest."""


@runtime_checkable
class ImageClassifier(Protocol):
    """A frozen network that computes the scores of classes; gradients flow to the image.

    `EfficientNetLite0` and `TimmClassifier` implement it.
    """

    def logits(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Computes the logits of images in [-1, 1]."""


def frozen_classifier(place: str, network: nn.Module) -> tuple[ImageClassifier]:
    """Freezes a network in place and wraps it in a tuple, as `frozen_pyramid` does.

    Args:
        place: The class that takes the network. The error message starts with it.
        network: An `ImageClassifier`.

    Raises:
        TypeError: If the network is not an `ImageClassifier`.
    """
    if not isinstance(network, ImageClassifier):
        raise TypeError(
            f"{place}: expected a network with logits(image), got {type(network).__name__}; take EfficientNetLite0 or "
            "TimmClassifier"
        )
    network.eval().requires_grad_(requires_grad=False)
    return (network,)


def frozen_pyramid(place: str, network: nn.Module) -> tuple[FeaturePyramid]:
    """Freezes a network in place and wraps it in a tuple.

    A module that keeps the tuple as an attribute does not register the network as a submodule, so that optimizers,
    checkpoints and `.train()` do not see it.

    Args:
        place: The class that takes the network. The error message starts with it.
        network: A `FeaturePyramid`.

    Raises:
        TypeError: If the network is not a `FeaturePyramid`.
    """
    if not isinstance(network, FeaturePyramid):
        raise TypeError(
            f"{place}: expected a network with pyramid(image) and channels, got {type(network).__name__}; take "
            "EfficientNetLite0, LPIPSNetwork or TimmViTFeatures"
        )
    network.eval().requires_grad_(requires_grad=False)
    return (network,)


class FeatureNetwork(FrozenWeights, ABC):
    """Computes feature vectors of images with frozen weights, in float32 even inside autocast.

    The network resizes the images itself, so the features depend only on the class's arguments and the weights,
    both of which the attributes identify.

    Attributes:
        name: The name of the network and its weights, which becomes part of the names of scores.
        protocol: The name of the published protocol for resizing and normalizing images.
        resize: A description of that protocol.
        sha256: The SHA-256 of the weights, in hexadecimal.
        sizes: The length of each kind of feature vector; there is always a `pool`.
        is_official: Whether the network and weights are those that define FID.
    """

    name: str
    protocol: str
    resize: str
    sha256: str
    sizes: ClassVar[Mapping[str, int]]
    is_official: bool = False

    @torch.no_grad()
    def forward(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """Computes the feature vectors of images with pixels in 0..255, without gradients.

        Args:
            image: The images; the batch may be empty.

        Returns:
            The feature vectors by kind, with the lengths given by `sizes`.
        """
        if len(image) == 0:
            return {kind: image.new_zeros((0, n), dtype=torch.float32) for kind, n in self.sizes.items()}
        with torch.autocast(device_type=image.device.type, enabled=False), _full_precision(image):
            return self.features(image)

    @abstractmethod
    def features(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """Computes the feature vectors of at least one image with pixels in 0..255, by kind."""

    def stamp(self) -> dict[str, str | int | None]:
        """Returns what must be equal for features to be comparable: protocol, extractor, its SHA-256 and resizing."""
        return {
            "protocol": self.protocol,
            "extractor": self.name,
            "extractor_sha256": self.sha256,
            "resize": self.resize,
        }

    def freeze(self, name: str, tensor: Shaped[Tensor, "*shape"]) -> None:
        """Registers a tensor, converted to float32, as a buffer outside the state dict."""
        super().freeze(name, tensor.float().contiguous())


@contextmanager
def _full_precision(image: Shaped[Tensor, "..."]) -> Iterator[None]:
    """Disables TensorFloat-32, whose 10-bit mantissa changes the third digit of features."""
    if not image.is_cuda:
        yield
        return
    backends: Any = torch.backends
    settings = (backends.cudnn.conv, backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
