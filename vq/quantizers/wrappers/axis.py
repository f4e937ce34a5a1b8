"""Quantization along any axis, for tensors whose code axis is not the last one."""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from vq.quantizers.base import QuantizeOutput, Quantizer


class AxisQuantizer(nn.Module):
    """Quantizes along the axis `dim`: moves it to the end, quantizes, and moves it back.

    Use it in your own models: `dim=1` for images (batch, channels, height, width), `dim=0` for a matrix whose
    columns are the vectors. Everywhere else in this package the code axis is the last one, which is why this class
    is a wrapper and not itself a `Quantizer`.

    Indices have the axes of `z` without `dim`, then the quantizer's `index_shape`. A mask has the axes of `z` without
    `dim` and without the quantizer's `grid`.

    Args:
        quantizer: Quantizer of the vectors along `dim`.
        dim: Code axis; negative values count from the end.

    Example:
        >>> from vq.quantizers import LearnedCodebook, VectorQuantizer
        >>> images = AxisQuantizer(quantizer=VectorQuantizer(codebook=LearnedCodebook(size=8, dim=3)), dim=1)
        >>> out = images(torch.randn(2, 3, 5, 7))
        >>> out.quantized.shape, out.indices.shape
        (torch.Size([2, 3, 5, 7]), torch.Size([2, 5, 7]))
    """

    def __init__(self, *, quantizer: Quantizer, dim: int) -> None:
        super().__init__()
        self.quantizer, self.dim = quantizer, dim

    def forward(
        self, z: Shaped[Tensor, "*axes"], mask: Bool[Tensor, "*mask"] | None = None
    ) -> QuantizeOutput:
        """Quantizes vectors; in training mode it also updates the state.

        Args:
            z: Vectors of any floating-point dtype along the axis `dim`.
            mask: False at padded positions; None if there are none.

        Raises:
            ValueError: If `z` has no axis `dim`, or its length is not `codebook_dim`.
        """
        output: QuantizeOutput = self.quantizer(self._code_axis_last(z), mask)
        return QuantizeOutput(
            quantized=output.quantized.movedim(-1, self.dim),
            indices=output.indices,
            loss=output.loss,
            metrics=output.metrics,
        )

    def encode(self, z: Shaped[Tensor, "*axes"]) -> Int[Tensor, "*lead_and_index_shape"]:
        """Returns the indices of `z` without a change of state.

        Raises:
            ValueError: If `z` has no axis `dim`, its length is not `codebook_dim`, or a value is not finite.
        """
        return self.quantizer.encode(self._code_axis_last(z))

    def decode(self, indices: Int[Tensor, "*lead_and_index_shape"]) -> Shaped[Tensor, "*axes"]:
        """Returns the codes of `indices`, with the code axis at `dim`.

        Raises:
            ValueError: If an index is out of range, or the result has too few axes to have one at `dim`.
        """
        codes = self.quantizer.decode(indices)
        if not -codes.ndim <= self.dim < codes.ndim:
            raise ValueError(
                f"AxisQuantizer.decode: expected indices of vectors with an axis {self.dim} (dim), got the "
                f"shape {tuple(indices.shape)}"
            )
        return codes.movedim(-1, self.dim)

    def _code_axis_last(self, z: Shaped[Tensor, "*axes"]) -> Shaped[Tensor, "*lead dim"]:
        length = self.quantizer.codebook_dim
        if not -z.ndim <= self.dim < z.ndim or z.shape[self.dim] != length:
            raise ValueError(
                f"AxisQuantizer: expected z with the axis {self.dim} (dim) of length {length} (codebook_dim), "
                f"got the shape {tuple(z.shape)}"
            )
        return torch.movedim(z, self.dim, -1)
