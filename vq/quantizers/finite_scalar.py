"""Finite scalar quantization: a grid instead of a codebook (FSQ, and SFSQ on [0, 1])."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class FiniteScalarQuantizer(Quantizer):
    r"""Rounds each channel to a few fixed levels (FSQ); the codebook is the product grid of the levels.

    With $h = (L - 1)(1 - \epsilon) / 2$, and $o = 1/2$ for even L, 0 for odd, each channel is bounded to
    $b = h \tanh(z + \operatorname{artanh}(o / h)) - o$. The code is $\operatorname{round}(b)$ over
    $\lfloor L / 2 \rfloor$, which is in [-1, 1]. The index is the number with the digits
    $\operatorname{round}(b) + \lfloor L / 2 \rfloor$, the first channel least significant. There is no loss and
    nothing is learned.

    With a `noise_rate`, training adds uniform noise to the channels of some examples instead of rounding them: their
    code is $b + u$ over $\lfloor L / 2 \rfloor$, with u uniform in [-1/2, 1/2), the width of a step (noise dropout). It
    may exceed the outermost levels by half a step. Their index is still that of $\operatorname{round}(b)$. Eval always
    rounds.

    Source: Mentzer et al. 2024, https://arxiv.org/abs/2309.15505, eq. 1 and appendix A.1; the noise: Parker et al.
        2024 (Stable Codec), https://arxiv.org/abs/2411.19842, section 3.2.
    Differs from the source: atanh instead of tan in the shift (confirmed by the authors); 0.1 to 0.2 % of
        the indices differ. Stable Codec has symmetric levels, as `SimpleFiniteScalarQuantizer`, and its published code
        also leaves some examples neither rounded nor noisy. In vector-quantize-pytorch the noise is added to rounded
        codes, which are then clamped to [-1, 1], and its width is 1 whatever L is.

    Args:
        levels: Number of levels L of each channel, each at least 3; 5 and more are recommended. The paper uses
            8-6-5 (2^8), 8-5-5-5 (2^10), 7-5-5-5-5 (2^12), 8-8-8-6-5 (2^14), 8-8-8-5-5-5 (2^16).
        shift: `"atanh"`, or `"tan"` as in the text of the paper, for checkpoints that were trained with it.
        eps: Relative distance of the outermost levels from the bound of tanh. It is -1e-3 in vector-quantize-pytorch
            and Cosmos, in which the bound is beyond the levels.
        noise_rate: Fraction of examples (entries of the first axis of `z`) that get noise in training.

    Raises:
        ValueError: If `levels` is empty, a level is below 3, the codebook has 2^63 codes or more, or `noise_rate` is
            not in [0, 1].

    Example:
        >>> FiniteScalarQuantizer(levels=[8, 5, 5, 5]).codebook_size
        1000
    """

    def __init__(
        self,
        *,
        levels: Sequence[int],
        shift: Literal["atanh", "tan"] = "atanh",
        eps: float = 1e-3,
        noise_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_levels("FiniteScalarQuantizer", levels)
        _check_noise_rate("FiniteScalarQuantizer", noise_rate)
        self.levels, self.shift, self.eps, self.noise_rate = tuple(levels), shift, eps, noise_rate
        self.codebook_size, self.codebook_dim = math.prod(levels), len(levels)

    @classmethod
    def example(cls) -> "FiniteScalarQuantizer":
        """Returns a quantizer with even and odd levels, which has 240 codes."""
        return cls(levels=[8, 6, 5])

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        bounded = self._bounded(z)
        rounded = bounded.round()
        half_width = self._levels(z) // 2
        code = _noisy(bounded, rounded, self.noise_rate) if self.training and self.noise_rate else rounded
        return QuantizeOutput(
            quantized=replace_value(bounded / half_width, code / half_width),
            indices=self._index(rounded),
            loss=z.new_zeros(()),
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return self._index(self._bounded(z).round())

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        levels = self._levels(indices)
        half_width = levels // 2
        return (unpack_digits(indices, levels) - half_width).to(dtype) / half_width

    def _bounded(self, z: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead dim"]:
        """Bounds each channel so that rounding gives exactly L values."""
        levels = self._levels(z)
        half = (levels - 1).to(z.dtype) * (1 - self.eps) / 2
        offset = (1 - levels % 2).to(z.dtype) / 2
        ratio = offset / half
        return half * torch.tanh(z + (ratio.atanh() if self.shift == "atanh" else ratio.tan())) - offset

    def _index(self, rounded: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        # NaN has no integer value. The middle level keeps the index in range; the code itself stays NaN.
        levels = self._levels(rounded)
        return pack_digits(rounded.nan_to_num(0.0).long() + levels // 2, levels)

    def _levels(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "dim"]:
        return constant(int64s, *self.levels, device=like.device)


@QUANTIZERS.register_module()
class SimpleFiniteScalarQuantizer(Quantizer):
    r"""Bounds each channel by a sigmoid and rounds it to L evenly spaced levels from 0 to 1 (SFSQ).

    With $n = \operatorname{round}((L - 1)\,\sigma(z))$ the code is $n / (L - 1)$; the index is the number with the
    digits n, the first channel least significant. There is no loss and nothing is learned.

    It is FSQ in other coordinates: its index of $2 (z + \operatorname{artanh}(o / h))$ is the index that
    `FiniteScalarQuantizer(eps=0)` gives z, for even and odd L. Only the range of the codes and the scale of z differ.
    With a `noise_rate` the code of some examples in training is $\sigma(z) + u / (L - 1)$, with u uniform in
    [-1/2, 1/2).

    Source: Doraemonzzz/vector-quantize, `sfsq.py`; there is no paper. The noise: Parker et al. 2024 (Stable Codec),
        https://arxiv.org/abs/2411.19842, section 3.2.
    Differs from the source: Stable Codec has the same levels, stretched to [-1, 1].

    Args:
        levels: Number of levels L of each channel, each at least 3; see `FiniteScalarQuantizer`.
        noise_rate: Fraction of examples (entries of the first axis of `z`) that get noise in training.

    Raises:
        ValueError: If `levels` is empty, a level is below 3, the codebook has 2^63 codes or more, or `noise_rate` is
            not in [0, 1].

    Example:
        >>> SimpleFiniteScalarQuantizer(levels=[5])(torch.zeros(1, 1)).quantized
        tensor([[0.5000]])
    """

    def __init__(self, *, levels: Sequence[int], noise_rate: float = 0.0) -> None:
        super().__init__()
        check_levels("SimpleFiniteScalarQuantizer", levels)
        _check_noise_rate("SimpleFiniteScalarQuantizer", noise_rate)
        self.levels, self.noise_rate = tuple(levels), noise_rate
        self.codebook_size, self.codebook_dim = math.prod(levels), len(levels)

    @classmethod
    def example(cls) -> "SimpleFiniteScalarQuantizer":
        """Returns a quantizer with even and odd levels, which has 240 codes."""
        return cls(levels=[8, 6, 5])

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        bounded = z.sigmoid()
        levels = self._levels(z)
        rounded = round_unit(bounded, levels)
        is_noisy = self.training and self.noise_rate > 0
        code = _noisy(bounded * (levels - 1), rounded, self.noise_rate) if is_noisy else rounded
        return QuantizeOutput(
            quantized=replace_value(bounded, code / (levels - 1)),
            indices=pack_rounded(rounded, levels),
            loss=z.new_zeros(()),
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        levels = self._levels(z)
        return pack_rounded(round_unit(z.sigmoid(), levels), levels)

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        levels = self._levels(indices)
        return unpack_digits(indices, levels).to(dtype) / (levels - 1)

    def _levels(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "dim"]:
        return constant(int64s, *self.levels, device=like.device)


def round_unit(bounded: Float[Tensor, "*lead dim"], levels: Int[Tensor, "dim"]) -> Float[Tensor, "*lead dim"]:
    """Rounds numbers in [0, 1] to L evenly spaced levels, returned as whole numbers in [0, L - 1]."""
    return (bounded * (levels - 1)).round()


def pack_rounded(rounded: Float[Tensor, "*lead dim"], levels: Int[Tensor, "dim"]) -> Int[Tensor, "*lead"]:
    """Packs whole numbers in [0, L - 1] into one index; NaN, which has no integer value, counts as 0."""
    return pack_digits(rounded.nan_to_num(0.0).long(), levels)


def _noisy(
    bounded: Float[Tensor, "*lead dim"], rounded: Float[Tensor, "*lead dim"], rate: float
) -> Float[Tensor, "*lead dim"]:
    """Adds noise of the width of one step to the bounded channels of some examples, and rounds those of the others."""
    examples = bounded.shape[:1] if bounded.ndim > 1 else ()
    is_noisy = torch.rand(examples, device=bounded.device) < rate
    is_noisy = is_noisy.view(*examples, *[1] * (bounded.ndim - len(examples)))
    noise = torch.rand_like(bounded) - 0.5
    return torch.where(is_noisy, bounded.detach() + noise, rounded)


def _check_noise_rate(place: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{place}: expected a noise_rate in [0, 1], got {rate}")


def check_levels(place: str, levels: Sequence[int]) -> None:
    """Validates the levels of a grid.

    Raises:
        ValueError: If `levels` is empty, a level is below 3, or the codebook has 2^63 codes or more.
    """
    if not levels or min(levels) < 3:
        raise ValueError(
            f"{place}: expected levels of at least 3, got {list(levels)}; for two levels per channel use a "
            f"LookupFreeQuantizer"
        )
    if math.prod(levels) >= 2**63:
        raise ValueError(
            f"{place}: expected fewer than 2^63 codes, got {math.prod(levels)}; an index is int64"
        )
