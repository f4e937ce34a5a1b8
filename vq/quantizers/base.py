"""What every quantizer is (`Quantizer`) and returns (`QuantizeOutput`)."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from vq.ops.numerics.integers import as_int64
from vq.ops.numerics.precision import at_least_float32, computed_in
from vq.quantizers.learning import Part, one_event


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


class Quantizer(Part, ABC):
    """Replaces vectors by codes of a finite set, and codes by indices and back.

    The public `forward`, `encode` and `decode` are the same for every quantizer: they check what comes
    in and leave autocast. A quantizer implements `_forward`, `_encode` and `_decode`, which may rely on that.

    Precision:
        Everything is computed in float32, or in float64 if `z` is float64, whatever the dtype of the module's own
        parameters; `quantized` has the dtype of `z`, the loss that of the computation. `decode` does the same
        for the dtype it is asked for. So `decode(encode(z), z.dtype)` is `forward(z).quantized` in eval mode, bit
        for bit, in every dtype.

    State:
        It changes in training mode only, at the end of the forward of the outermost quantizer, from sums over all
        ranks: each codebook learns once, from everything that a forward has shown it, however often it was called.
        A forward that raises changes nothing. With micro-batches see `vq.quantizers.accumulate`.
        Under activation checkpointing (`torch.utils.checkpoint`, in both forms) the recomputation changes nothing,
        and has the values and gradients of the first forward. That of a compiled quantizer with a state raises.

    Loss:
        In training it is the mean over the unmasked vectors of all ranks, however many each has; so are the metrics.
        Its gradient is that of this rank's part, times the number of ranks: DistributedDataParallel, which takes the
        mean of the ranks' gradients, arrives at the gradient of the mean over all vectors. A forward does not know
        of other micro-batches: weigh the loss of each by its share of the unmasked vectors of all ranks. In eval it
        is the mean of this rank alone.

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
        self, z: Shaped[Tensor, "*lead dim"], mask: Shaped[Tensor, "*mask"] | None = None
    ) -> QuantizeOutput:
        """Quantizes; in training mode also updates the state.

        Args:
            z: Any floating-point dtype and leading shape, the code axis last.
            mask: Boolean, of the leading shape of `z` (without a `grid`), False at padded positions. What stands
                there is read as 0 and gets no gradient; it is neither counted, nor learnt from, nor part of the loss.

        Raises:
            ValueError: If the last axis, the grid or the mask has the wrong shape, or `z` or the mask another dtype.
        """
        self._check_input(z, mask)
        with _without_autocast(z):
            exact = at_least_float32(z)
            # At the door, for all quantizers: NaN in the padding would reach gradients as 0 * NaN.
            if mask is not None:
                exact = torch.where(mask.view(*mask.shape, *[1] * (len(self.grid) + 1)), exact, 0.0)
            if self.event is not None:  # called by another quantizer
                output = self._forward(exact, mask)
            else:
                lead = z.shape[: z.ndim - 1 - len(self.grid)]
                with one_event(self, exact, mask, math.prod(lead)) as event:
                    output = self._forward(exact, mask)
                    loss, *values = event.average([output.loss, *output.metrics.values()])
                metrics = dict(zip(output.metrics, values, strict=True))
                output = replace(output, loss=loss, metrics=metrics)
        if output.quantized.dtype == z.dtype:
            return output
        return replace(output, quantized=output.quantized.to(z.dtype))

    @torch.no_grad()
    def encode(self, z: Shaped[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_index_shape"]:
        """The indices of `z`: no gradient and no change of state, whatever the mode.

        Raises:
            ValueError: If the last axis or the dtype is wrong or, except under `torch.compile`, a value is not finite.
        """
        self._check_input(z, None)
        # Under torch.compile a look at the values would break the graph.
        if not torch.compiler.is_compiling() and not bool(z.isfinite().all()):
            raise ValueError(
                f"{type(self).__name__}.encode: expected finite z, got {int((~z.isfinite()).sum())} values "
                f"that are NaN or infinite; check the encoder and its input"
            )
        with _without_autocast(z):
            return self._encode(at_least_float32(z))

    def decode(
        self, indices: Shaped[Tensor, "*lead_and_index_shape"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*lead dim"]:
        """The codes of `indices`, bit for bit what `forward` gives in eval mode for a `z` of this dtype.

        Args:
            indices: Any integer type.
            dtype: Of the codes, such as that of the layer they are for; None is float64 if the quantizer has
                parameters or buffers in float64, else float32.

        Raises:
            ValueError: If `indices` are not integers, the trailing axes are not `index_shape` or, except under
                `torch.compile`, an index is out of range.
        """
        whole = self._checked_indices(indices)
        dtype = dtype or self._own_precision()
        with _without_autocast(indices):
            return self._decode(whole, computed_in(dtype)).to(dtype)

    @abstractmethod
    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        """`forward` for a checked `z` in float32 or float64, outside of autocast."""

    @abstractmethod
    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_index_shape"]:
        """`encode` for a checked, finite `z` in float32 or float64, outside of autocast."""

    @abstractmethod
    def _decode(
        self, indices: Int[Tensor, "*lead_and_index_shape"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        """`decode` for checked int64 indices, outside of autocast; `dtype` is float32 or float64."""

    def _prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Before the first search of a training forward: shows codebooks the vectors that they begin or revive from.

        A wrapper hands on what its quantizer would see. Only the first vectors of a forward that a codebook is
        shown matter, so a wrapper may call it with other vectors than it will quantize.
        """

    @property
    def needs_task_gradient(self) -> bool:
        """Whether something in it learns, or works, by the gradient of the task alone, not by its own loss."""
        inner = [part for part in self.children() if isinstance(part, Quantizer | nn.ModuleList)]
        quantizers = [
            part for each in inner for part in (each if isinstance(each, nn.ModuleList) else [each])
        ]
        return any(part.needs_task_gradient for part in quantizers if isinstance(part, Quantizer))

    def _over_ranks(self, mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """A mean over this rank's unmasked vectors as a part of the loss (see there)."""
        return self.event.weighted(mean) if self.training and self.event is not None else mean

    @classmethod
    @abstractmethod
    def example(cls) -> "Quantizer":
        """A small one, on which the contract tests run."""

    def _check_input(self, z: Tensor, mask: Tensor | None) -> None:
        place = type(self).__name__
        if not z.is_floating_point():
            raise ValueError(
                f"{place}: expected z of a floating-point dtype, got {z.dtype}; convert it with .float() if that is "
                f"meant"
            )
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(
                f"{place}: expected a mask of the dtype torch.bool, got {mask.dtype}; write what counts, such as "
                f"mask != 0"
            )
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

    def _checked_indices(self, indices: Tensor) -> Int[Tensor, "*lead_and_index_shape"]:
        """As int64, if they are whole numbers of the right shape and, except under `torch.compile`, in range."""
        place = f"{type(self).__name__}.decode"
        axes = len(self.index_shape)
        if axes and tuple(indices.shape[-axes:]) != self.index_shape:
            raise ValueError(
                f"{place}: expected indices whose last axes are {self.index_shape}, got the shape "
                f"{tuple(indices.shape)}"
            )
        return self._in_range(as_int64(f"{place}: indices", indices))

    def _in_range(self, indices: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
        if torch.compiler.is_compiling() or indices.numel() == 0 or indices.is_meta:
            return indices
        lowest, highest = (int(extreme) for extreme in indices.aminmax())
        if lowest < 0 or highest >= self.codebook_size:
            raise ValueError(
                f"{type(self).__name__}.decode: expected indices in [0, {self.codebook_size}), got "
                f"{lowest} to {highest}; were they made by a larger codebook?"
            )
        return indices

    def _own_precision(self) -> torch.dtype:
        """float64 if a parameter or a buffer is, else float32."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def learnable(z: Float[Tensor, "n dim"], mask: Bool[Tensor, "*lead"] | None) -> Bool[Tensor, "n"]:
    """Which vectors may change state: those that the mask keeps and that are finite."""
    # One sum instead of a comparison of every element: an element that is not finite makes it so.
    is_finite = z.detach().sum(dim=-1).isfinite()
    return is_finite if mask is None else is_finite & mask.reshape(-1)


@contextmanager
def _without_autocast(x: Tensor) -> Iterator[Any]:
    # The meta device has no autocast. Asking torch which devices have it breaks the graph before torch 2.12.
    if x.device.type == "meta":
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield
