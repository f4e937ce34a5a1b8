"""Product quantization: each part of a vector is quantized by itself and has an index of its own (GVQ, GSVQ, HVQ)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.ema import EMACodebook
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class ProductQuantizer(Quantizer):
    """Splits each vector into consecutive parts and quantizes each part by itself (product or grouped VQ).

    A single quantizer for several groups is shared (GVQ). Its one set of codes learns once per step, from the
    vectors of all parts together, and its k-means and revival see all of them too. A quantizer for each part is
    product quantization (GSVQ). The codebooks of the parts may have different sizes if their indices are packed
    (HVQ).

    The loss is the mean of the losses of the parts. For parts of equal length it is the loss of the whole vector.

    Source: Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57, section II.

    Args:
        quantizers: Quantizers of the parts in order, all different objects with the same `index_shape`; each part
            is as long as the `codebook_dim` of its quantizer. With `ResidualQuantizer` it is grouped residual VQ.
        groups: Number of parts that share a single quantizer.
        dim: Last axis of `z`, if it is shorter than the parts together. The last part is then padded with zeros. It
            learns to code them, they count in its loss, and they are cut off its codes. None is the sum of the parts.
        is_packed: Whether the indices of the parts are packed into one number, the first part least significant. Then
            `codebook_size` is the product of the parts' sizes, and the indices have no axis of parts.

    Raises:
        ValueError: If there are no parts, their sizes do not agree, `dim` leaves a part nothing but padding,
            or a packed index does not fit into int64.

    Example:
        >>> quantizer = ProductQuantizer(quantizers=[VectorQuantizer.example()], groups=2)
        >>> quantizer.codebook_dim, quantizer(torch.randn(5, 8)).indices.shape
        (8, torch.Size([5, 2]))
    """

    def __init__(
        self,
        *,
        quantizers: Sequence[Quantizer],
        groups: int | None = None,
        dim: int | None = None,
        is_packed: bool = False,
    ) -> None:
        super().__init__()
        self.is_shared, self.is_packed = len(quantizers) == 1, is_packed
        parts = list(quantizers) * (groups or 1) if self.is_shared else list(quantizers)
        _check_parts(parts, len(quantizers), groups, is_packed)
        self.parts = nn.ModuleList(quantizers)
        self.widths = [part.codebook_dim for part in parts]
        self.padding = 0 if dim is None else sum(self.widths) - dim
        if not 0 <= self.padding < self.widths[-1]:
            raise ValueError(
                f"ProductQuantizer: expected a dim above {sum(self.widths[:-1])} and up to "
                f"{sum(self.widths)}, for the parts {self.widths}, got {dim}; use fewer or other parts"
            )
        sizes = [part.codebook_size for part in parts]
        self._sizes = tuple(sizes)
        self.codebook_size = math.prod(sizes) if is_packed else sizes[0]
        self.codebook_dim = sum(self.widths) - self.padding
        self.index_shape = () if is_packed else (len(parts), *parts[0].index_shape)

    @classmethod
    def example(cls) -> "ProductQuantizer":
        """Returns two parts that share one codebook of averages."""
        return cls(quantizers=[VectorQuantizer(codebook=EMACodebook.example())], groups=2)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        if self.is_shared:
            stacked = self._stacked(z)
            output = self.parts[0](stacked, self._repeated(mask, stacked))
            indices, quantized = output.indices, output.quantized.flatten(-2)
            loss, metrics = output.loss, dict(output.metrics)
        else:
            chunks = torch.split(self._padded(z), self.widths, dim=-1)
            outputs = [part(chunk, mask) for part, chunk in zip(self.parts, chunks, strict=True)]
            indices = torch.stack([output.indices for output in outputs], dim=self._axis())
            quantized = torch.cat([output.quantized for output in outputs], dim=-1)
            loss = torch.stack([output.loss for output in outputs]).mean()
            metrics = {
                f"part{number}/{name}": value
                for number, output in enumerate(outputs)
                for name, value in output.metrics.items()
            }
        return QuantizeOutput(
            quantized=quantized[..., : self.codebook_dim],
            indices=self._packed(indices) if self.is_packed else indices,
            loss=loss,
            metrics=metrics,
        )

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Shows each inner quantizer its parts."""
        if self.is_shared:
            stacked = self._stacked(z)
            self._parts()[0].prepare(stacked, self._repeated(mask, stacked))
            return
        chunks = torch.split(self._padded(z), self.widths, dim=-1)
        for part, chunk in zip(self._parts(), chunks, strict=True):
            part.prepare(chunk, mask)

    def _repeated(
        self, mask: Bool[Tensor, "*lead"] | None, stacked: Float[Tensor, "*lead parts width"]
    ) -> Bool[Tensor, "*lead parts"] | None:
        """Repeats a mask along the axis of the parts."""
        return None if mask is None else mask[..., None].expand(stacked.shape[:-1])

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_parts"]:
        if self.is_shared:
            indices = self._parts()[0].encode(self._stacked(z))
        else:
            chunks = torch.split(self._padded(z), self.widths, dim=-1)
            indices = torch.stack(
                [part.encode(chunk) for part, chunk in zip(self._parts(), chunks, strict=True)],
                dim=self._axis(),
            )
        return self._packed(indices) if self.is_packed else indices

    def _decode(
        self, indices: Int[Tensor, "*lead_and_parts"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        digits = unpack_digits(indices, self._radices(indices)) if self.is_packed else indices
        if self.is_shared:
            codes = self._parts()[0].decode(digits, dtype).flatten(-2)
        else:
            of_parts = digits.unbind(self._axis())
            codes = torch.cat(
                [part.decode(own, dtype) for part, own in zip(self._parts(), of_parts, strict=True)], dim=-1
            )
        return codes[..., : self.codebook_dim]

    def _packed(self, digits: Int[Tensor, "*lead parts"]) -> Int[Tensor, "*lead"]:
        return pack_digits(digits, self._radices(digits))

    def _radices(self, like: Int[Tensor, "..."]) -> Int[Tensor, "parts"]:
        return constant(int64s, *self._sizes, device=like.device)

    def _padded(self, z: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead padded"]:
        return F.pad(z, (0, self.padding)) if self.padding else z

    def _stacked(self, z: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead parts width"]:
        """Splits vectors into parts along a new axis."""
        return self._padded(z).reshape(*z.shape[:-1], len(self.widths), self.widths[0])

    def _axis(self) -> int:
        """Returns the axis of the parts in the indices: before the axes of a part's own index, such as stages."""
        return -1 - len(self._parts()[0].index_shape)

    def _parts(self) -> list[Quantizer]:
        return [part for part in self.parts if isinstance(part, Quantizer)]


def _check_parts(parts: Sequence[Quantizer], given: int, groups: int | None, is_packed: bool) -> None:
    if not parts or (groups is not None and groups != len(parts)):
        raise ValueError(
            f"ProductQuantizer: expected one quantizer shared by groups >= 1 parts, or one for each part, got "
            f"{given} and groups={groups}"
        )
    if given > 1 and len(set(parts)) < given:
        raise ValueError(
            "ProductQuantizer: expected a different quantizer for each part, got one twice; to share one among "
            "all parts, give it once, with groups"
        )
    if any(part.grid for part in parts):
        raise ValueError(
            f"ProductQuantizer: expected quantizers of single vectors, got one of whole grids "
            f"{next(part.grid for part in parts if part.grid)}; use it as the outermost quantizer"
        )
    sizes = [part.codebook_size for part in parts]
    shapes = [part.index_shape for part in parts]
    if len(set(shapes)) > 1 or (is_packed and shapes[0]):
        raise ValueError(
            f"ProductQuantizer: expected quantizers of one index_shape, which must be () to pack indices, got {shapes}"
        )
    if len(set(sizes)) > 1 and not is_packed:
        raise ValueError(
            f"ProductQuantizer: expected quantizers of one codebook_size, got {sizes}; with is_packed=True the "
            f"sizes may differ"
        )
    if is_packed and math.prod(sizes) >= 2**63:
        raise ValueError(
            f"ProductQuantizer: expected fewer than 2^63 packed codes, got the product of {sizes}; leave the "
            f"indices unpacked (is_packed=False)"
        )
