"""Multi-scale residual quantization: the features of an image from coarse to fine (VAR)."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant
from vq.ops.numerics.precision import computed_in
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.ema import EMACodebook
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS

_UPSAMPLINGS = ("bicubic", "bilinear")


@QUANTIZERS.register_module()
class MultiScaleResidualQuantizer(Quantizer):
    r"""Quantizes features at a coarse scale, then the residual at a finer one, and so on (VAR).

    Let r = z at first. For each scale k, $i_k$ are the indices of r averaged down to (h_k, w_k), and
    $r \leftarrow r - \phi_k(up(e_{i_k}))$, where up interpolates to full size. The code is the sum of the
    $\phi_k(up(e_{i_k}))$. $\phi_k(x) = (1 - \rho) x + \rho\, conv_k(x)$ repairs the blur of the interpolation;
    neighbouring scales share a convolution. One quantizer serves all scales and learns once per step.

    All scales of an image are quantized jointly: `z` is (..., h, w, dim) with (h, w) the last scale, and `indices`
    is (..., sum of h_k w_k), coarse to fine, each scale row by row (`scale_maps` splits it). A mask is over images.
    A value that is not finite invalidates its whole image.

    The loss is the mean over scales of the quantizer's own loss at that scale, plus $|sg(z) - \hat z_k|^2$ with
    $\hat z_k$ the sum up to k, which moves the $\phi$ only. The gradient of the task passes straight through to z.

    Source: Tian et al. 2024 (VAR), https://arxiv.org/abs/2404.02905, algorithms 1 and 2; which scales share a
        convolution, and $\rho$ = 0.5, are those of its published implementation. With `mix=0`, bilinear interpolation
        and a `BinarySphericalQuantizer` it is that of Han et al. 2024 (Infinity), https://arxiv.org/abs/2412.04431.
    Differs from the source: codes and z are compared at each scale by the quantizer's own loss, which any
        quantizer has, not at full size. A $\phi_k$ learns from its own scale only, not from the later ones. So one
        scale with `mix=0` is the quantizer itself. The convolutions begin as the identity, not at random, so that
        codes fit from the first step.

    Args:
        quantizer: Quantizer shared by all scales, with one index per vector. A codebook that is initialised from
            data, or revives codes, takes them from the features at full size.
        scales: (height, width) of each scale from coarse to fine; a number is a square. The last is the size
            of the features.
        num_convs: Number of different convolutions that the scales share.
        mix: Weight $\rho$ of the convolutions, in [0, 1]; 0 has no convolutions.
        upsampling: The interpolation to full size: `"bicubic"` (VAR), or `"bilinear"` (Infinity).

    Raises:
        ValueError: If there are no scales, they shrink, the quantizer has more than one index per vector or
            needs the gradient of the task, or `num_convs`, `mix` or `upsampling` is out of range.

    Example:
        >>> quantizer = MultiScaleResidualQuantizer(quantizer=VectorQuantizer.example(), scales=[1, 2, 4])
        >>> quantizer(torch.randn(5, 4, 4, 4)).indices.shape
        torch.Size([5, 21])
    """

    def __init__(
        self,
        *,
        quantizer: Quantizer,
        scales: Sequence[int | Sequence[int]],
        num_convs: int = 4,
        mix: float = 0.5,
        upsampling: str = "bicubic",
    ) -> None:
        super().__init__()
        self.scales = _sizes(scales)
        if quantizer.index_shape or quantizer.grid:
            raise ValueError(
                f"MultiScaleResidualQuantizer: expected a quantizer with one index per vector, got one with the "
                f"index_shape {quantizer.index_shape}"
            )
        _check_own_learning(quantizer)
        if num_convs < 1 or not 0 <= mix <= 1:
            raise ValueError(
                f"MultiScaleResidualQuantizer: expected num_convs >= 1 and mix in [0, 1], got {num_convs} and "
                f"{mix}"
            )
        if upsampling not in _UPSAMPLINGS:
            raise ValueError(
                f"MultiScaleResidualQuantizer: expected upsampling to be bicubic or bilinear, got {upsampling!r}"
            )
        self.quantizer, self.mix, self.upsampling = quantizer, mix, upsampling
        self.codebook_size, self.codebook_dim = quantizer.codebook_size, quantizer.codebook_dim
        self.grid = self.scales[-1]
        self.index_shape = (sum(height * width for height, width in self.scales),)
        chosen = _shared_convs(len(self.scales), num_convs)
        # Only convolutions that some scale uses: DistributedDataParallel raises for unused parameters.
        used = sorted(set(chosen))
        self.conv_of_scale = [used.index(number) for number in chosen]
        dim = self.codebook_dim
        self.convs = nn.ModuleList(_identity_conv(dim) for _ in used if mix)

    @property
    def needs_task_gradient(self) -> bool:
        """False: the gradient of the task passes around the scales."""
        return False

    @classmethod
    def example(cls) -> "MultiScaleResidualQuantizer":
        """Returns three scales up to 3 x 2 that share one codebook of averages."""
        return cls(
            quantizer=VectorQuantizer(codebook=EMACodebook.example()), scales=[1, (2, 1), (3, 2)], num_convs=2
        )

    def scale_maps(self, indices: Shaped[Tensor, "*lead index"]) -> list[Shaped[Tensor, "*lead _h _w"]]:
        """Splits indices into the index maps of their scales, coarse to fine.

        Args:
            indices: Indices of all scales, or of the first ones.

        Raises:
            ValueError: If the indices end inside a scale.
        """
        lead, maps, start = indices.shape[:-1], [], 0
        for height, width in self.scales:
            if start == indices.shape[-1]:
                break
            end = start + height * width
            if end > indices.shape[-1]:
                raise ValueError(
                    f"MultiScaleResidualQuantizer: expected whole scales of {self.scales}, got "
                    f"{indices.shape[-1]} indices, which end inside the scale {height} x {width}"
                )
            maps.append(indices[..., start:end].reshape(*lead, height, width))
            start = end
        return maps

    def decode_prefix(
        self, indices: Shaped[Tensor, "*lead index"], depth: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*lead h w dim"]:
        """Returns the sum of the first `depth` scales at full size: a coarser version of the same features.

        Args:
            indices: Indices of all scales, or of the first `depth` scales at least.
            depth: Number of scales to sum.
            dtype: Dtype of the result; the default is that of `decode`.

        Raises:
            ValueError: If the depth is not in [1, number of scales], there are too few indices, or one is not an
                integer in range.
        """
        if not 1 <= depth <= len(self.scales):
            raise ValueError(
                f"MultiScaleResidualQuantizer: expected a depth in [1, {len(self.scales)}], got {depth}"
            )
        maps = self.scale_maps(indices)[:depth]
        if len(maps) < depth:
            raise ValueError(
                f"MultiScaleResidualQuantizer: expected the indices of {depth} scales, got {len(maps)}"
            )
        dtype = dtype or self._own_precision()
        return self._summed(maps, computed_in(dtype)).to(dtype)

    def _forward(
        self, z: Float[Tensor, "*lead h w dim"], mask: Bool[Tensor, "*lead"] | None
    ) -> QuantizeOutput:
        features = _images(z)
        # Adds 0, or NaN to all values of an image with a value that is not finite, so that no scale learns from it.
        features = features + 0 * features.detach().sum(dim=(1, 2, 3), keepdim=True)
        images = None if mask is None else mask.reshape(-1)
        if self.training:
            # The coarsest scale has few vectors, all of them means: show the codebook the features at full size.
            self.quantizer.prepare(features.detach(), _repeated(images, self.scales[-1]))
        target, total = features.detach(), torch.zeros_like(features)
        indices, losses = [], []
        metrics: dict[str, Tensor] = {}
        for number, size in enumerate(self.scales):
            output = self.quantizer(_resized(features - total, "area", size), _repeated(images, size))
            total = total.detach() + self._full_size(output.quantized.detach(), number)
            indices.append(output.indices.flatten(1))
            losses.append(output.loss)
            if self.mix:
                losses[-1] = losses[-1] + self._over_ranks(
                    mean_square(total, target, _repeated(images, self.scales[-1]))
                )
            total = total.detach()
            metrics |= {f"scale{number}/{name}": value for name, value in output.metrics.items()}
        return QuantizeOutput(
            quantized=replace_value(z, total.view(z.shape)),
            indices=torch.cat(indices, dim=1).view(*z.shape[:-3], *self.index_shape),
            loss=torch.stack(losses).mean(),
            metrics=metrics,
        )

    def _encode(self, z: Float[Tensor, "*lead h w dim"]) -> Int[Tensor, "*lead index"]:
        features = _images(z)
        total, indices = torch.zeros_like(features), []
        for number, size in enumerate(self.scales):
            found = self.quantizer.encode(_resized(features - total, "area", size))
            total = total + self._full_size(self.quantizer.decode(found, z.dtype), number)
            indices.append(found.flatten(1))
        return torch.cat(indices, dim=1).view(*z.shape[:-3], *self.index_shape)

    def _decode(
        self, indices: Int[Tensor, "*lead index"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead h w dim"]:
        return self._summed(self.scale_maps(indices), dtype)

    def _summed(
        self, maps: Sequence[Shaped[Tensor, "*lead _h _w"]], dtype: torch.dtype
    ) -> Float[Tensor, "*lead h w dim"]:
        lead = maps[0].shape[:-2]
        codes = [self.quantizer.decode(own.reshape(-1, *own.shape[-2:]), dtype) for own in maps]
        total = codes[0].new_zeros(codes[0].shape[0], *self.grid, self.codebook_dim)
        for number, code in enumerate(codes):  # in the order of `forward`: the sum is the same bit for bit
            total = total + self._full_size(code, number)
        return total.view(*lead, *self.grid, self.codebook_dim)

    def _full_size(self, code: Float[Tensor, "n _h _w dim"], number: int) -> Float[Tensor, "n h w dim"]:
        """Interpolates the codes of a scale to full size and applies its convolution."""
        large = _resized(code, self.upsampling, self.scales[-1])
        if not self.mix:
            return large
        conv = self.convs[self.conv_of_scale[number]]
        weight, bias = (part.to(code.dtype) for part in conv.parameters())
        mended = F.conv2d(large.movedim(-1, 1), weight, bias, padding=1).movedim(1, -1)
        return (1 - self.mix) * large + self.mix * mended


def _sizes(scales: Sequence[int | Sequence[int]]) -> list[tuple[int, int]]:
    pairs = [(scale, scale) if isinstance(scale, int) else tuple(scale) for scale in scales]
    sizes = [(pair[0], pair[-1]) for pair in pairs if len(pair) == 2 and min(pair) >= 1]
    grows = all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(sizes))
    if not sizes or len(sizes) < len(pairs) or not grows:
        raise ValueError(
            f"MultiScaleResidualQuantizer: expected scales of positive (height, width) from coarse to fine, got "
            f"{list(scales)}"
        )
    return sizes


def _shared_convs(num_scales: int, num_convs: int) -> list[int]:
    """Returns for each scale the number of its convolution: the nearest of evenly spaced ticks in [0, 1]."""
    # With four convolutions the published ticks are a little further out than the middles of four equal parts. Some
    # scales are equally near to two ticks; NumPy's rounding decides as the published weights need it.
    margin = 1 / (3 if num_convs == 4 else 2) / num_convs
    ticks = np.linspace(margin, 1 - margin, num_convs)
    positions = [number / max(num_scales - 1, 1) for number in range(num_scales)]
    return [int(np.abs(ticks - position).argmin()) for position in positions]


def _identity_conv(dim: int) -> nn.Conv2d:
    """Returns a 3x3 convolution that is initialised as the identity."""
    conv = nn.Conv2d(dim, dim, 3, padding=1)
    nn.init.dirac_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _images(z: Float[Tensor, "*lead h w dim"]) -> Float[Tensor, "n h w dim"]:
    # Contiguous, as in `decode`: a convolution may round differently in another memory layout.
    return z.reshape(math.prod(z.shape[:-3]), *z.shape[-3:]).contiguous()


def _resized(x: Float[Tensor, "n _ _ dim"], mode: str, size: tuple[int, int]) -> Float[Tensor, "n _ _ dim"]:
    """Resizes a map by interpolation along its columns, then along its rows."""
    rows, columns = (
        constant(_matrix, mode, before, after, device=x.device).to(x.dtype)
        for before, after in zip(x.shape[1:3], size, strict=True)
    )
    tall = (rows @ x.flatten(2)).view(x.shape[0], size[0], *x.shape[2:])
    return columns @ tall


def _matrix(mode: str, before: int, after: int) -> Float[Tensor, "{after} {before}"]:
    """Returns the matrix of an interpolation along one axis.

    A product with it gives the same bits on every device, compiled or not.
    """
    options = {} if mode == "area" else {"align_corners": False}
    unit = torch.eye(before).view(before, 1, before, 1)
    return F.interpolate(unit, size=(after, 1), mode=mode, **options).view(before, after).T.contiguous()


def _repeated(images: Bool[Tensor, "n"] | None, size: tuple[int, int]) -> Bool[Tensor, "n _h _w"] | None:
    return None if images is None else images[:, None, None].expand(-1, *size)


def _check_own_learning(quantizer: Quantizer) -> None:
    """Raises if a quantizer needs the gradient of the task, which does not reach the scales."""
    if quantizer.needs_task_gradient:
        estimator = getattr(quantizer, "estimator", None)
        got = type(quantizer).__name__ + (f" with {type(estimator).__name__}" if estimator else "")
        raise ValueError(
            f"MultiScaleResidualQuantizer: expected a quantizer that learns by its own loss, because the gradient of "
            f"the task passes around it, got {got}, which has no effect or does not learn without that gradient; leave "
            f"the estimator out, use another quantizer, or put the bottleneck around the multi-scale quantizer"
        )
