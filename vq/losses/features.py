"""Losses between what a frozen network computes of reconstructions and of images."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.losses.base import Loss
from vq.losses.perceptual import RANGE_SLACK
from vq.networks.frozen.features import frozen_classifier, frozen_pyramid
from vq.ops.directions import unit
from vq.ops.images import checked_rgb, rgb_view
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LOSSES


class FrozenNetworkLoss(Loss):
    """Compares what a frozen network computes of reconstructions and of images.

    The network's values for the image are computed once, without a gradient. The network is in no state dict. The
    arithmetic is in float32, also inside autocast, or in float64 if the images are.

    Args:
        network: A tuple with the frozen network.
        rgb: The channels of the images that the network sees as red, green and blue; None for images of 3 channels.
    """

    def __init__(self, *, network: tuple[Any], rgb: Sequence[int] | None) -> None:
        super().__init__()
        self.rgb = checked_rgb(type(self).__name__, rgb)
        self._network = network
        self._is_range_checked = False

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean distance of reconstructions and images in [-1, 1].

        Raises:
            ValueError: If the first batch of images exceeds [-1, 1].
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        name = type(self).__name__
        reconstruction, image = (rgb_view(name, x, self.rgb) for x in (reconstruction, image))
        if not self._is_range_checked and not torch.compiler.is_compiling():
            _check_range(name, image)
            self._is_range_checked = True
        dtype = torch.promote_types(reconstruction.dtype, torch.float32)
        cast("nn.Module", self._network[0]).to(image.device, dtype)
        with torch.autocast(image.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.seen(image.to(dtype))
            return self.distance(self.seen(reconstruction.to(dtype)), wanted)

    @abstractmethod
    def seen(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b *_"]]:
        """Computes what is compared, of images in [-1, 1]."""

    @abstractmethod
    def distance(
        self, found: list[Float[Tensor, "b *_"]], wanted: list[Float[Tensor, "b *_"]]
    ) -> Float[Tensor, ""]:
        """Computes the distance of what was seen of reconstructions and of images."""


@LOSSES.register_module()
class FeatureLoss(FrozenNetworkLoss):
    """Compares the feature pyramids of reconstructions and images in a frozen network.

    At each depth the features of a position are normalized to length 1, subtracted, squared and summed over the
    channels; the loss is the mean over positions and depths (0..4). It is LPIPS without the learned weights of the
    channels. The image's features are computed once, without a gradient. The network is in no state dict. The
    arithmetic is in float32, also inside autocast, or in float64 if the images are.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1 with all weights 1.
    Differs from the source: the mean over the depths, not the sum.

    Args:
        network: A `FeaturePyramid`, such as `EfficientNetLite0`, which this class freezes.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        TypeError: If the network is not a feature pyramid.
        ValueError: If `rgb` is invalid.
    """

    def __init__(self, *, network: nn.Module, rgb: Sequence[int] | None = None) -> None:
        super().__init__(network=frozen_pyramid("FeatureLoss", network), rgb=rgb)

    def seen(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b *_"]]:
        """Computes the feature maps, from the shallowest to the deepest."""
        maps: list[Tensor] = self._network[0].pyramid(image)
        return maps

    def distance(
        self, found: list[Float[Tensor, "b *_"]], wanted: list[Float[Tensor, "b *_"]]
    ) -> Float[Tensor, ""]:
        """Computes the mean squared distance of directions."""
        distances = [
            (unit(a, dim=1) - unit(b, dim=1)).square().sum(dim=1).mean()
            for a, b in zip(found, wanted, strict=True)
        ]
        return torch.stack(distances).mean()


@LOSSES.register_module()
class GramLoss(FrozenNetworkLoss):
    r"""Compares which features of a frozen network occur together, wherever they are in the image (style, texture).

    With the features $F$ of an image at one depth, with C channels at N positions, the Gram matrix is
    $G = F F^\top / (C N)$. The loss is the sum over depths of the squared differences of the entries of both Gram
    matrices, averaged over images. Its scale depends on that of the features, so the weight is found anew for each
    network. The rest is as in `FeatureLoss`.

    Source: Johnson et al. 2016, https://arxiv.org/abs/1603.08155, eq. 3 and 4, summed over depths.
    Differs from the source: nothing. It is four times the loss of Gatys et al. 2015, https://arxiv.org/abs/1508.06576,
        eq. 4 and 5, with all weights 1; Cosmos (https://arxiv.org/abs/2501.03575) takes absolute differences.

    Args:
        network: A `FeaturePyramid`, such as `EfficientNetLite0`, which this class freezes.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        TypeError: If the network is not a feature pyramid.
        ValueError: If `rgb` is invalid.
    """

    def __init__(self, *, network: nn.Module, rgb: Sequence[int] | None = None) -> None:
        super().__init__(network=frozen_pyramid("GramLoss", network), rgb=rgb)

    def seen(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b *_"]]:
        """Computes the Gram matrices, from the shallowest to the deepest."""
        rows = [features.flatten(2) for features in self._network[0].pyramid(image)]
        return [x @ x.mT / x[0].numel() for x in rows]

    def distance(
        self, found: list[Float[Tensor, "b *_"]], wanted: list[Float[Tensor, "b *_"]]
    ) -> Float[Tensor, ""]:
        """Computes the sum over depths of the squared Frobenius norm of the difference, averaged over images."""
        distances = [(a - b).square().sum(dim=(1, 2)).mean() for a, b in zip(found, wanted, strict=True)]
        return torch.stack(distances).sum()


@LOSSES.register_module()
class LogitsLoss(FrozenNetworkLoss):
    """Compares the class scores of a frozen classifier for reconstructions and images (logits perceptual loss).

    The loss is the squared difference of the logits, averaged over classes and images. It sees the content of the image
    and hardly where it is; recent tokenizers use it in place of LPIPS or beside it, with a weight of 0.1. The rest is
    as in `FeatureLoss`.

    Source: Weber et al. 2024 (MaskBit), https://arxiv.org/abs/2409.16211, and the authors' code, with ResNet-50.
    Differs from the source: the network resizes and normalizes the images as its weights expect.

    Args:
        network: An `ImageClassifier`, such as `TimmClassifier` (ResNet-50) or `EfficientNetLite0`, which this class
            freezes.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        TypeError: If the network is not a classifier.
        ValueError: If `rgb` is invalid.
    """

    def __init__(self, *, network: nn.Module, rgb: Sequence[int] | None = None) -> None:
        super().__init__(network=frozen_classifier("LogitsLoss", network), rgb=rgb)

    def seen(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b *_"]]:
        """Computes the logits."""
        return [self._network[0].logits(image)]

    def distance(
        self, found: list[Float[Tensor, "b *_"]], wanted: list[Float[Tensor, "b *_"]]
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference."""
        return (found[0] - wanted[0]).square().mean()


@LOSSES.register_module()
class CosineFeatureLoss(Loss):
    """Compares predicted features with those of a frozen teacher: 1 - cosine, averaged over positions (0..2).

    Source: Peng et al. 2022 (BEiT v2, VQ-KD), https://arxiv.org/abs/2208.06366, eq. 2.
    Differs from the source: nothing.
    """

    def forward(
        self, reconstruction: Float[Tensor, "b c h w"], image: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean distance of the directions of predicted features and of the teacher's.

        Args:
            reconstruction: Predicted features.
            image: Features of the teacher, which get no gradient.
        """
        predicted, wanted = (unit(at_least_float32(x), dim=1) for x in (reconstruction, image.detach()))
        return (1 - (predicted * wanted).sum(dim=1)).mean()


def _check_range(name: str, image: Float[Tensor, "b 3 h w"]) -> None:
    low, high = (extreme.item() for extreme in torch.aminmax(image))
    if not (low >= -1 - RANGE_SLACK and high <= 1 + RANGE_SLACK):
        raise ValueError(
            f"{name}: expected images in [-1, 1], got values from {low:.3g} to {high:.3g}; scale them, for "
            "example from bytes with x / 127.5 - 1"
        )
