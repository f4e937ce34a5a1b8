"""What every quantizer is (`Quantizer`) and returns (`QuantizeOutput`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOutput:
    """What a quantizer makes of a batch of vectors.

    Args:
        quantized: The codes, in the dtype of `z`; the gradient goes to `z` as the estimator says.
        indices: int64, every entry in [0, codebook_size): the leading axes of `z`, then the
            quantizer's own `index_shape`.
        loss: The quantizer's own objective, weighted as in its paper; 0 if it has none.
        metrics: Detached scalars to log, such as each term of the loss; never to be added to a loss.
    """

    quantized: Float[Tensor, "*lead dim"]
    indices: Int[Tensor, "*lead_and_index_shape"]
    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Quantizer(nn.Module, ABC):
    """Replaces vectors by codes of a finite set, and codes by indices and back.

    The public `forward`, `encode` and `decode` are the same for every quantizer: they check what comes
    in, leave autocast, and compute in float32 (float64 for float64 input). A quantizer implements
    `_forward`, `_encode` and `_decode`, which may rely on that.

    State (buffers) changes only in `forward` and only in training mode, once for each optimizer step
    (see `vq.quantizers.accumulate`), from sums over all ranks.

    Bad input:
        `forward` never waits for the device, so it cannot raise on values. Where `z` is NaN, the loss or
        the quantized vectors are NaN, the indices stay in range, and no state is touched by that vector.
        The same holds for infinite `z`, unless the quantizer saturates (as tanh does). `encode` raises.
        An empty batch gives empty results and the loss 0.

    Attributes:
        codebook_size: The number of different values of one index.
        codebook_dim: The last axis of `z`.
        index_shape: The axes that `indices` has after the leading axes of `z`; empty for one index a vector.
        grid: The axes before the code axis that are quantized as one, such as the height and width of an
            image's features; empty where each vector is quantized by itself. They are not among the leading
            axes, neither of `indices` nor of a mask.
    """

    codebook_size: int
    codebook_dim: int
    index_shape: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()

    def forward(
        self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*mask"] | None = None
    ) -> QuantizeOutput:
        """Quantizes; in training mode also updates the state.

        Args:
            z: Any leading shape, the code axis last.
            mask: The leading shape of `z` (without a `grid`), False at padded positions. What stands there is
                read as 0 and gets no gradient; it is neither counted, nor learnt from, nor part of the loss.

        Raises:
            ValueError: If the last axis, the grid or the mask has the wrong shape.
        """
        self._check_shapes(z, mask)
        with _without_autocast(z):
            exact = _at_least_float32(z)
            # At the door, for all quantizers: NaN in the padding would reach gradients as 0 * NaN.
            if mask is not None:
                exact = torch.where(mask.view(*mask.shape, *[1] * (len(self.grid) + 1)), exact, 0.0)
            output = self._forward(exact, mask)
        if output.quantized.dtype == z.dtype:
            return output
        return QuantizeOutput(
            quantized=output.quantized.to(z.dtype),
            indices=output.indices,
            loss=output.loss,
            metrics=output.metrics,
        )

    @torch.no_grad()
    def encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_index_shape"]:
        """The indices of `z`: no gradient and no change of state, whatever the mode.

        Raises:
            ValueError: If the last axis is wrong or, except under `torch.compile`, a value is not finite.
        """
        self._check_shapes(z, None)
        # Under torch.compile a look at the values would break the graph.
        if not torch.compiler.is_compiling() and not bool(z.isfinite().all()):
            raise ValueError(
                f"{type(self).__name__}.encode: expected finite z, got {int((~z.isfinite()).sum())} values "
                f"that are NaN or infinite; check the encoder and its input"
            )
        with _without_autocast(z):
            return self._encode(_at_least_float32(z))

    def decode(self, indices: Int[Tensor, "*lead_and_index_shape"]) -> Float[Tensor, "*lead dim"]:
        """The codes of `indices`, bit for bit what `forward` gives in eval mode for float32 `z`.

        Raises:
            ValueError: If the trailing axes are not `index_shape` or, except under `torch.compile`, an
                index is out of range.
        """
        axes = len(self.index_shape)
        if axes and tuple(indices.shape[-axes:]) != self.index_shape:
            raise ValueError(
                f"{type(self).__name__}.decode: expected indices whose last axes are {self.index_shape}, "
                f"got the shape {tuple(indices.shape)}"
            )
        if not torch.compiler.is_compiling():
            self._check_range(indices)
        with _without_autocast(indices):
            return self._decode(indices.long())

    @abstractmethod
    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        """`forward` for a checked `z` in float32 or float64, outside of autocast."""

    @abstractmethod
    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_index_shape"]:
        """`encode` for a checked, finite `z` in float32 or float64, outside of autocast."""

    @abstractmethod
    def _decode(self, indices: Int[Tensor, "*lead_and_index_shape"]) -> Float[Tensor, "*lead dim"]:
        """`decode` for checked int64 indices."""

    @classmethod
    @abstractmethod
    def example(cls) -> "Quantizer":
        """A small one, on which the contract tests run."""

    def _check_shapes(self, z: Tensor, mask: Tensor | None) -> None:
        if z.ndim == 0 or z.shape[-1] != self.codebook_dim:
            raise ValueError(
                f"{type(self).__name__}: expected z with the last axis {self.codebook_dim} (codebook_dim), "
                f"got the shape {tuple(z.shape)}; the code axis must come last"
            )
        lead = z.ndim - 1 - len(self.grid)
        if lead < 0 or tuple(z.shape[lead:-1]) != self.grid:
            raise ValueError(
                f"{type(self).__name__}: expected z with the axes {self.grid} (grid) before the code axis, got "
                f"the shape {tuple(z.shape)}; it is made for features of one size"
            )
        if mask is not None and mask.shape != z.shape[:lead]:
            raise ValueError(
                f"{type(self).__name__}: expected a mask of the shape {tuple(z.shape[:lead])}, the leading axes "
                f"of z, got {tuple(mask.shape)}"
            )

    def _check_range(self, indices: Tensor) -> None:
        if indices.numel() == 0:
            return
        lowest, highest = int(indices.min()), int(indices.max())
        if lowest < 0 or highest >= self.codebook_size:
            raise ValueError(
                f"{type(self).__name__}.decode: expected indices in [0, {self.codebook_size}), got "
                f"{lowest} to {highest}; were they made by a larger codebook?"
            )


def learnable(z: Float[Tensor, "n dim"], mask: Bool[Tensor, "*lead"] | None) -> Bool[Tensor, "n"]:
    """Which vectors may change state: those that the mask keeps and that are finite."""
    # One sum instead of a comparison of every element: an element that is not finite makes it so.
    is_finite = z.detach().sum(dim=-1).isfinite()
    return is_finite if mask is None else is_finite & mask.reshape(-1)


def _at_least_float32(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()


@contextmanager
def _without_autocast(x: Tensor) -> Iterator[Any]:
    # The meta device has no autocast. Asking torch which devices have it breaks the graph before torch 2.12.
    if x.device.type == "meta":
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield
