"""EfficientNet-Lite0, a small ImageNet classifier whose weights are part of a pip package."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from vq import pretrained
from vq.networks.frozen.features import FeatureNetwork
from vq.networks.sizes import check_counts
from vq.registry import FEATURE_NETWORKS

EFFICIENTNET_WEIGHTS = "efficientnet_lite0/imagenet.safetensors"
"""The path of the weight file below the pretrained folder."""

_NATIVE_SIZE = 224
_EPSILON = 1e-3  # batch normalization


class _Block(NamedTuple):
    kernel: int
    stride: int
    expansion: int
    width: int


# EfficientNet-B0: the first block of each stage and the number of blocks. The other blocks have stride 1.
_STAGES = (
    (_Block(3, 1, 1, 16), 1),
    (_Block(3, 2, 6, 24), 2),
    (_Block(5, 2, 6, 40), 2),
    (_Block(3, 2, 6, 80), 3),
    (_Block(5, 1, 6, 112), 3),
    (_Block(5, 2, 6, 192), 4),
    (_Block(3, 1, 6, 320), 1),
)
_BLOCKS = [block if i == 0 else block._replace(stride=1) for block, count in _STAGES for i in range(count)]


@FEATURE_NETWORKS.register_module()
class EfficientNetLite0(FeatureNetwork):
    """Computes the features of EfficientNet-Lite0, trained to classify ImageNet.

    `pool` (1280) is the mean over positions before the classifier, and `logits` (1000) are the class scores. A
    distance between these features is not FID and is not comparable with it, but it ranks models when the weights of
    FID's network are not available. `pyramid` returns feature maps through which gradients flow.

    Source: Tan and Le 2019, https://arxiv.org/abs/1905.11946, in TensorFlow's Lite version of 2020, without
        squeeze and excitation and with ReLU6.
    Differs from the source: batch normalization is folded into the convolutions; images are resized to a square
        (bilinear, antialiased), not cropped.

    Args:
        size: The height and width, in pixels, to which images are resized. A smaller size is faster but gives
            different features; it becomes part of `name`.

    Raises:
        ValueError: If `size` is below 32.
        FileNotFoundError: If the weight file does not exist. The message says which command creates it.
    """

    sizes: ClassVar[Mapping[str, int]] = {"pool": 1280, "logits": 1000}
    channels: tuple[int, ...] = (16, 24, 40, 112, 1280)

    def __init__(self, *, size: int = _NATIVE_SIZE) -> None:
        super().__init__()
        check_counts("EfficientNetLite0", size=size)
        if size < 32:
            raise ValueError(f"EfficientNetLite0: expected a size of at least 32 px, got {size}; take 224")
        self.size = size
        self.name = "efficientnet_lite0" if size == _NATIVE_SIZE else f"efficientnet_lite0-{size}"
        self.protocol = f"bilinear-{size}"
        self.resize = f"torch bilinear with antialiasing, {size}; x / 127.5 - 1"
        weights = pretrained.tensors(EFFICIENTNET_WEIGHTS)
        self.sha256 = pretrained.digest(weights)
        for name, conv, norm in _convolutions():
            kernel, bias = _folded(weights, conv, norm)
            self.freeze(f"{name}.weight", kernel)
            self.freeze(f"{name}.bias", bias)
        self.freeze("fc.weight", weights["_fc.weight"])
        self.freeze("fc.bias", weights["_fc.bias"])

    def features(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """Computes `pool` and `logits` of at least one image with pixels in 0..255."""
        pool = self.pyramid(image.float() / 127.5 - 1)[-1].mean(dim=(2, 3))
        return {"pool": pool, "logits": self._classified(pool)}

    def logits(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1000"]:
        """Computes the class scores of images in [-1, 1], through which gradients flow."""
        return self._classified(self.pyramid(image)[-1].mean(dim=(2, 3)))

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Computes the last feature map at each resolution (1/2 to 1/32 of `size`) of images in [-1, 1]."""
        x = image.to(self.get_buffer("fc_bias").dtype)
        if tuple(image.shape[2:]) != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return list(self.maps(x))

    def maps(self, image: Float[Tensor, "b 3 h w"]) -> Iterator[Float[Tensor, "b _ _ _"]]:
        """Yields the maps of `pyramid` one after the other, of images in [-1, 1] that are not resized."""
        x = image.to(self.get_buffer("fc_bias").dtype)
        x = F.relu6(self._conv(x, "stem", stride=2))
        for index, block in enumerate(_BLOCKS):
            if block.stride > 1:
                yield x
            inside = x
            if block.expansion > 1:
                inside = F.relu6(self._conv(inside, f"{index}.expand"))
            inside = F.relu6(self._conv(inside, f"{index}.depthwise", stride=block.stride))
            inside = self._conv(inside, f"{index}.project")
            x = x + inside if inside.shape == x.shape else inside
        yield F.relu6(self._conv(x, "head"))

    def _classified(self, pool: Float[Tensor, "b 1280"]) -> Float[Tensor, "b 1000"]:
        return F.linear(pool, self.get_buffer("fc_weight"), self.get_buffer("fc_bias"))

    def _conv(
        self, x: Float[Tensor, "b c_in h w"], name: str, *, stride: int = 1
    ) -> Float[Tensor, "b c_out oh ow"]:
        key = name.replace(".", "_")
        weight = self.get_buffer(f"{key}_weight")
        groups = x.shape[1] // weight.shape[1]
        # TensorFlow's "same" padding: if it is odd, the smaller half comes first.
        pads = []
        for side, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, self.get_buffer(f"{key}_bias"), stride=stride, groups=groups)


def _convolutions() -> list[tuple[str, str, str]]:
    """Lists the name of each convolution here, its name in the file, and that of its batch normalization there."""
    found = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    for index, block in enumerate(_BLOCKS):
        place = f"_blocks.{index}"
        if block.expansion > 1:
            found.append((f"{index}.expand", f"{place}._expand_conv", f"{place}._bn0"))
        found.append((f"{index}.depthwise", f"{place}._depthwise_conv", f"{place}._bn1"))
        found.append((f"{index}.project", f"{place}._project_conv", f"{place}._bn2"))
    return found


def _folded(
    weights: Mapping[str, Float[Tensor, "..."]], conv: str, norm: str
) -> tuple[Float[Tensor, "c_out c_in kh kw"], Float[Tensor, "c_out"]]:
    """Folds a batch normalization into the convolution before it, in float64."""
    kernel = weights[f"{conv}.weight"].double()
    gain, shift, mean, variance = (
        weights[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + _EPSILON).sqrt()
    return kernel * scale[:, None, None, None], shift - mean * scale
