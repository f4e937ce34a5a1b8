"""VGG16 without its classifier, from the weights of LPIPS."""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from vq import pretrained
from vq.networks.frozen.features import FeatureNetwork
from vq.networks.frozen.lpips import LPIPSNetwork
from vq.networks.sizes import check_counts
from vq.registry import FEATURE_NETWORKS

VGG_WEIGHTS = "lpips/vgg.safetensors"
"""The path of the weight file below the pretrained folder."""

_NATIVE_SIZE = 224
_SMALLEST = 16  # four halvings


@FEATURE_NETWORKS.register_module()
class VGG16(FeatureNetwork):
    """Computes the features of VGG16, trained to classify ImageNet.

    `pool` (512) is the mean over positions of the last convolution's output, after its ReLU. The weights are those of
    LPIPS, which lack the classifier. A distance between these features is not FID and is not comparable with it. It is
    a second opinion beside `EfficientNetLite0`, above all for a tokenizer that has learned from that network.

    Source: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556, configuration D.
    Differs from the source: images are resized to a square (bilinear, antialiased), not cropped, and normalized with
        the rounded mean and standard deviation of LPIPS.

    Args:
        size: The height and width, in pixels, to which images are resized. A smaller size is faster but gives
            different features; it becomes part of `name`.

    Raises:
        ValueError: If `size` is below 16.
        FileNotFoundError: If the weight file does not exist. The message says which command creates it.
    """

    sizes: ClassVar[Mapping[str, int]] = {"pool": 512}

    def __init__(self, *, size: int = _NATIVE_SIZE) -> None:
        super().__init__()
        check_counts("VGG16", size=size)
        if size < _SMALLEST:
            raise ValueError(f"VGG16: expected a size of at least {_SMALLEST} px, got {size}; take 224")
        self.size = size
        self.name = "vgg16" if size == _NATIVE_SIZE else f"vgg16-{size}"
        self.protocol = f"bilinear-{size}"
        self.resize = f"torch bilinear with antialiasing, {size}; normalized as in LPIPS"
        self.sha256 = pretrained.digest(pretrained.tensors(VGG_WEIGHTS))
        self.trunk = LPIPSNetwork(trunk="vgg")

    def features(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """Computes `pool` of at least one image with pixels in 0..255."""
        x = image.float() / 127.5 - 1
        if tuple(image.shape[2:]) != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return {"pool": self.trunk.pyramid(x)[-1].mean(dim=(2, 3))}
