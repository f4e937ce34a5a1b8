"""The Inception network that defines FID."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from vq import pretrained
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.resize import resize_like_pillow, resize_like_tensorflow_1
from vq.registry import FEATURE_NETWORKS

INCEPTION_WEIGHTS = "inception/pt_inception-2015-12-05-6726825d.pth"
"""The path of the weight file below the pretrained folder."""

InceptionProtocol = Literal["pytorch-fid", "torch-fidelity", "clean-fid", "clean-fid-quantized"]

_RESIZE = {
    "pytorch-fid": "torch bilinear, no antialiasing, half-pixel centres, 299; 2 x / 255 - 1",
    "torch-fidelity": "TensorFlow 1.x bilinear, no antialiasing, 299; (x - 128) / 128",
    "clean-fid": "Pillow bicubic with antialiasing, float32, 299; (x - 128) / 128",
    "clean-fid-quantized": "Pillow bicubic with antialiasing, rounded to bytes, 299; (x - 128) / 128",
}
_EPSILON = 1e-3  # batch normalization
_SPATIAL_CHANNELS = 7

_In = Float[Tensor, "b c_in h w"]
_Out = Float[Tensor, "b c_out oh ow"]


def _stem() -> Iterator[tuple[str, int, int, int, int]]:
    yield "Conv2d_1a_3x3", 3, 32, 3, 3
    yield "Conv2d_2a_3x3", 32, 32, 3, 3
    yield "Conv2d_2b_3x3", 32, 64, 3, 3
    yield "Conv2d_3b_1x1", 64, 80, 1, 1
    yield "Conv2d_4a_3x3", 80, 192, 3, 3


def _block_a(name: str, width: int, pooled: int) -> Iterator[tuple[str, int, int, int, int]]:
    yield f"{name}.branch1x1", width, 64, 1, 1
    yield f"{name}.branch5x5_1", width, 48, 1, 1
    yield f"{name}.branch5x5_2", 48, 64, 5, 5
    yield f"{name}.branch3x3dbl_1", width, 64, 1, 1
    yield f"{name}.branch3x3dbl_2", 64, 96, 3, 3
    yield f"{name}.branch3x3dbl_3", 96, 96, 3, 3
    yield f"{name}.branch_pool", width, pooled, 1, 1


def _block_c(name: str, inner: int) -> Iterator[tuple[str, int, int, int, int]]:
    yield f"{name}.branch1x1", 768, 192, 1, 1
    yield f"{name}.branch7x7_1", 768, inner, 1, 1
    yield f"{name}.branch7x7_2", inner, inner, 1, 7
    yield f"{name}.branch7x7_3", inner, 192, 7, 1
    yield f"{name}.branch7x7dbl_1", 768, inner, 1, 1
    yield f"{name}.branch7x7dbl_2", inner, inner, 7, 1
    yield f"{name}.branch7x7dbl_3", inner, inner, 1, 7
    yield f"{name}.branch7x7dbl_4", inner, inner, 7, 1
    yield f"{name}.branch7x7dbl_5", inner, 192, 1, 7
    yield f"{name}.branch_pool", 768, 192, 1, 1


def _block_e(name: str, width: int) -> Iterator[tuple[str, int, int, int, int]]:
    yield f"{name}.branch1x1", width, 320, 1, 1
    yield f"{name}.branch3x3_1", width, 384, 1, 1
    yield f"{name}.branch3x3_2a", 384, 384, 1, 3
    yield f"{name}.branch3x3_2b", 384, 384, 3, 1
    yield f"{name}.branch3x3dbl_1", width, 448, 1, 1
    yield f"{name}.branch3x3dbl_2", 448, 384, 3, 3
    yield f"{name}.branch3x3dbl_3a", 384, 384, 1, 3
    yield f"{name}.branch3x3dbl_3b", 384, 384, 3, 1
    yield f"{name}.branch_pool", width, 192, 1, 1


def _convolutions() -> Iterator[tuple[str, int, int, int, int]]:
    """Yields the name, input channels, output channels, kernel height and kernel width of each convolution."""
    yield from _stem()
    yield from _block_a("Mixed_5b", 192, 32)
    yield from _block_a("Mixed_5c", 256, 64)
    yield from _block_a("Mixed_5d", 288, 64)
    yield "Mixed_6a.branch3x3", 288, 384, 3, 3
    yield "Mixed_6a.branch3x3dbl_1", 288, 64, 1, 1
    yield "Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3
    yield "Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        yield from _block_c(name, inner)
    yield "Mixed_7a.branch3x3_1", 768, 192, 1, 1
    yield "Mixed_7a.branch3x3_2", 192, 320, 3, 3
    yield "Mixed_7a.branch7x7x3_1", 768, 192, 1, 1
    yield "Mixed_7a.branch7x7x3_2", 192, 192, 1, 7
    yield "Mixed_7a.branch7x7x3_3", 192, 192, 7, 1
    yield "Mixed_7a.branch7x7x3_4", 192, 192, 3, 3
    yield from _block_e("Mixed_7b", 1280)
    yield from _block_e("Mixed_7c", 2048)


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor of the weight file, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, width, out, height, across in _convolutions():
        shapes[f"{name}.conv.weight"] = (out, width, height, across)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (out,)
    return shapes | {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


@FEATURE_NETWORKS.register_module()
class InceptionNetwork(FeatureNetwork):
    """Computes the Inception features of FID, sFID, the Inception Score and KID.

    `pool` (2048) is the last average pool. `spatial` (2023, for sFID) holds the first 7 channels of the first
    convolution of the sixth mixed block on its 17 x 17 grid, in raster order with the channels last. `logits` (1008,
    for the Inception Score) are the class scores without biases.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, with the network of Szegedy et al. 2015,
        https://arxiv.org/abs/1512.00567, in the version of 2015-12-05 that TensorFlow published.
    Differs from the source: batch normalization is folded into the convolutions, which changes features by about
        1e-6; images are always rounded to bytes, so that their scores equal those of the files written from them.

    Args:
        protocol: The published protocol whose resizing is used: `pytorch-fid` (bilinear of torch, the most common
            one), `torch-fidelity` (bilinear of TensorFlow 1, as in ADM's evaluator), `clean-fid` (bicubic of Pillow
            in float), or `clean-fid-quantized` (rounded to bytes).

    Raises:
        ValueError: If the protocol is unknown, or the weight file belongs to another network.
        FileNotFoundError: If the weight file does not exist. The message says which command fetches it.
    """

    sizes: ClassVar[Mapping[str, int]] = {"pool": 2048, "spatial": 2023, "logits": 1008}

    def __init__(self, *, protocol: InceptionProtocol = "pytorch-fid") -> None:
        super().__init__()
        if protocol not in get_args(InceptionProtocol):
            raise ValueError(
                f"InceptionNetwork: expected protocol to be one of {', '.join(get_args(InceptionProtocol))}, "
                f"got {protocol!r}; choose that of the scores you compare with"
            )
        file = pretrained.path(INCEPTION_WEIGHTS)
        self.protocol, self.resize = protocol, _RESIZE[protocol]
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        # The published file name ends in the first digits of the hash.
        self.is_official = self.sha256.startswith("6726825d")
        self.name = "inception" if self.is_official else f"inception-{self.sha256[:8]}"
        loaded = pretrained.read_tensors(file)
        weights = {key: value for key, value in loaded.items() if not key.endswith(".num_batches_tracked")}
        _check(weights, str(file))
        for name, *_ in _convolutions():
            kernel, bias = _folded(weights, name)
            self.freeze(f"{name}.weight", kernel)
            self.freeze(f"{name}.bias", bias)
        self.freeze("fc.weight", weights["fc.weight"])

    def features(self, image: UInt8[Tensor, "b 3 h w"]) -> dict[str, Float32[Tensor, "b size"]]:
        """Computes `pool`, `spatial` and `logits` of at least one image with pixels in 0..255."""
        x = self._stem(self._resized(image))
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self._mixed_a(x, name)
        x = self._mixed_reduce(x, "Mixed_6a")
        x = self._mixed_c(self._mixed_c(self._mixed_c(x, "Mixed_6b"), "Mixed_6c"), "Mixed_6d")
        # The first channels of the block are those of its first branch, the 1x1 convolution `mixed_6/conv`.
        spatial = x[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self._mixed_c(x, "Mixed_6e")
        x = self._mixed_last_reduce(x)
        x = self._mixed_e(x, "Mixed_7b", average=True)
        # The last block of the published network has max pooling; all others have average pooling.
        x = self._mixed_e(x, "Mixed_7c", average=False)
        pool = x.mean(dim=(2, 3))
        return {"pool": pool, "spatial": spatial, "logits": F.linear(pool, self.get_buffer("fc_weight"))}

    def _resized(self, image: UInt8[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 299 299"]:
        match self.protocol:
            case "pytorch-fid":
                unit = image.float() / 255
                return 2 * F.interpolate(unit, size=(299, 299), mode="bilinear", align_corners=False) - 1
            case "torch-fidelity":
                pixels = resize_like_tensorflow_1(image.float(), 299)
            case _:
                pixels = resize_like_pillow(image, 299, rounded=self.protocol == "clean-fid-quantized")
        return (pixels - 128) / 128

    def _conv(self, x: _In, name: str, *, stride: int = 1, padded: bool = True) -> _Out:
        key = name.replace(".", "_")
        weight = self.get_buffer(f"{key}_weight")
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if padded else 0
        return F.relu_(F.conv2d(x, weight, self.get_buffer(f"{key}_bias"), stride=stride, padding=padding))

    def _chain(self, x: _In, *names: str) -> _Out:
        for name in names:
            x = self._conv(x, name)
        return x

    def _stem(self, x: _In) -> _Out:
        x = self._conv(x, "Conv2d_1a_3x3", stride=2, padded=False)
        x = self._conv(x, "Conv2d_2a_3x3", padded=False)
        x = F.max_pool2d(self._conv(x, "Conv2d_2b_3x3"), 3, stride=2)
        x = self._conv(x, "Conv2d_3b_1x1")
        return F.max_pool2d(self._conv(x, "Conv2d_4a_3x3", padded=False), 3, stride=2)

    def _mixed_a(self, x: _In, name: str) -> _Out:
        return torch.cat(
            [
                self._conv(x, f"{name}.branch1x1"),
                self._chain(x, f"{name}.branch5x5_1", f"{name}.branch5x5_2"),
                self._chain(x, *(f"{name}.branch3x3dbl_{i}" for i in (1, 2, 3))),
                self._conv(_average(x), f"{name}.branch_pool"),
            ],
            dim=1,
        )

    def _mixed_reduce(self, x: _In, name: str) -> _Out:
        double = self._chain(x, f"{name}.branch3x3dbl_1", f"{name}.branch3x3dbl_2")
        return torch.cat(
            [
                self._conv(x, f"{name}.branch3x3", stride=2, padded=False),
                self._conv(double, f"{name}.branch3x3dbl_3", stride=2, padded=False),
                F.max_pool2d(x, 3, stride=2),
            ],
            dim=1,
        )

    def _mixed_c(self, x: _In, name: str) -> _Out:
        return torch.cat(
            [
                self._conv(x, f"{name}.branch1x1"),
                self._chain(x, *(f"{name}.branch7x7_{i}" for i in (1, 2, 3))),
                self._chain(x, *(f"{name}.branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
                self._conv(_average(x), f"{name}.branch_pool"),
            ],
            dim=1,
        )

    def _mixed_last_reduce(self, x: _In) -> _Out:
        name = "Mixed_7a"
        narrow = self._conv(x, f"{name}.branch3x3_1")
        wide = self._chain(x, *(f"{name}.branch7x7x3_{i}" for i in (1, 2, 3)))
        return torch.cat(
            [
                self._conv(narrow, f"{name}.branch3x3_2", stride=2, padded=False),
                self._conv(wide, f"{name}.branch7x7x3_4", stride=2, padded=False),
                F.max_pool2d(x, 3, stride=2),
            ],
            dim=1,
        )

    def _mixed_e(self, x: _In, name: str, *, average: bool) -> _Out:
        single = self._conv(x, f"{name}.branch3x3_1")
        double = self._chain(x, f"{name}.branch3x3dbl_1", f"{name}.branch3x3dbl_2")
        pooled = _average(x) if average else F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat(
            [
                self._conv(x, f"{name}.branch1x1"),
                self._conv(single, f"{name}.branch3x3_2a"),
                self._conv(single, f"{name}.branch3x3_2b"),
                self._conv(double, f"{name}.branch3x3dbl_3a"),
                self._conv(double, f"{name}.branch3x3dbl_3b"),
                self._conv(pooled, f"{name}.branch_pool"),
            ],
            dim=1,
        )


def _average(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    # TensorFlow excludes the padding from the mean.
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _folded(
    weights: Mapping[str, Float[Tensor, "..."]], name: str
) -> tuple[Float[Tensor, "c_out c_in kh kw"], Float[Tensor, "c_out"]]:
    """Folds a batch normalization into the convolution before it, in float64."""
    kernel = weights[f"{name}.conv.weight"].double()
    gain, shift, mean, variance = (
        weights[f"{name}.bn.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + _EPSILON).sqrt()
    return kernel * scale[:, None, None, None], shift - mean * scale


def _check(weights: Mapping[str, Float[Tensor, "..."]], file: str) -> None:
    """Checks the names and shapes of all tensors."""
    wanted = inception_shapes()
    found = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = [key for key in sorted(wanted.keys() | found.keys()) if wanted.get(key) != found.get(key)]
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"InceptionNetwork: expected the FID Inception of 2015-12-05 in {file}, got {len(wrong)} tensors that "
            f"differ, first {key!r} ({found.get(key, 'missing')} instead of {wanted.get(key, 'none')}); fetch the "
            "file again with `vq weights inception`"
        )
