"""The interface of all quantizers (`Quantizer`) and the result of their forward (`QuantizeOutput`)."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from vq.ops.numerics.integers import as_int64
from vq.ops.numerics.precision import at_least_float32, computed_in, without_autocast
from vq.quantizers.learning import Part, one_event


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOutput:
    """Holds the result of quantizing a batch of vectors.

    Args:
        quantized: Codes in the dtype of `z`, with the gradient to `z` that the estimator defines.
        indices: int64 indices in [0, codebook_size), whose shape is the leading axes of `z` followed by the
            quantizer's `index_shape`.
        loss: The quantizer's own loss, weighted as in its paper; 0 if it has none.
        metrics: Detached scalars to log, such as each term of the loss. They must not be added to a loss.
    """

    quantized: Float[Tensor, "*lead dim"]
    indices: Int[Tensor, "*lead_and_index_shape"]
    loss: Float[Tensor, ""]
    metrics: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


class Quantizer(Part, ABC):
    """Replaces vectors by codes of a finite set, and maps between codes and their indices.

    The public `forward`, `encode` and `decode` are the same for all quantizers: they validate the input and leave
    autocast. Subclasses implement `_forward`, `_encode` and `_decode`, which get validated input.

    Precision:
        All arithmetic is in float32, or in float64 if `z` is float64, whatever the dtype of the module's own
        parameters. `quantized` has the dtype of `z`; the loss has that of the computation. `decode` computes in the
        same precision for the dtype it is asked for. So in eval mode `decode(encode(z), z.dtype)` equals
        `forward(z).quantized` bit for bit, in every dtype.

    State:
        State changes in training mode only, at the end of the forward of the outermost quantizer, from sums over all
        ranks. Each codebook learns once per forward, from all vectors it has seen in it, however often it was called.
        A forward that raises changes nothing. For micro-batches see `vq.quantizers.accumulate`.
        Under activation checkpointing (`torch.utils.checkpoint`, in both forms) the recomputation changes no state,
        and has the values and gradients of the first forward. A compiled quantizer with state raises in a
        recomputation.

    Loss:
        In training the loss and the metrics are means over the unmasked vectors of all ranks, however many each
        rank has. The gradient of the loss is that of this rank's part times the number of ranks.
        DistributedDataParallel averages gradients over the ranks, which then gives the gradient of the mean over
        all vectors. A forward does not know of other micro-batches: weight the loss of each by its fraction of the
        unmasked vectors of all ranks. In eval the loss is the mean over this rank alone.

    Invalid values:
        `forward` never waits for the device, so it cannot raise on values. Where `z` is NaN, the loss or the
        quantized vectors are NaN, the indices stay in range, and no state changes because of that vector. The same
        holds for infinite `z`, unless the quantizer saturates (as tanh does). `encode` raises instead. An empty
        batch gives empty results and the loss 0.

    Attributes:
        codebook_size: Number of different values of one index.
        codebook_dim: Size of the last axis of `z`.
        index_shape: Axes of `indices` after the leading axes of `z`; empty for one index per vector.
        grid: Axes before the code axis that are quantized jointly, such as the height and width of an image's
            features; empty if each vector is quantized independently. They are not among the leading axes of
            `indices` and of a mask.
    """

    codebook_size: int
    codebook_dim: int
    index_shape: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()

    def forward(
        self, z: Shaped[Tensor, "*lead dim"], mask: Shaped[Tensor, "*mask"] | None = None
    ) -> QuantizeOutput:
        """Quantizes vectors; in training mode it also updates the state.

        Args:
            z: Vectors of any floating-point dtype and any leading shape, the code axis last.
            mask: Boolean mask with the leading shape of `z` (without a `grid`), False at padded positions. Padded
                vectors are read as 0 and get no gradient. They are not counted, not learned from, and not part of the
                loss.

        Returns:
            Codes, indices, loss and metrics. The codes at padded positions are those of a vector of zeros.

        Raises:
            ValueError: If the last axis, the grid or the mask has the wrong shape, or `z` or the mask the wrong
                dtype.
        """
        self._check_input(z, mask)
        with without_autocast(z):
            exact = at_least_float32(z)
            # Done once here for all quantizers: NaN in the padding would reach gradients as 0 * NaN.
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
        """Returns the indices of `z`, without gradient and without a change of state, in training mode too.

        Args:
            z: Vectors of any floating-point dtype and any leading shape, the code axis last.

        Raises:
            ValueError: If the last axis or the dtype is wrong or, except under `torch.compile`, a value is not
                finite.
        """
        self._check_input(z, None)
        # Reading values would break the graph of torch.compile.
        if not torch.compiler.is_compiling() and not bool(z.isfinite().all()):
            raise ValueError(
                f"{type(self).__name__}.encode: expected finite z, got {int((~z.isfinite()).sum())} values "
                f"that are NaN or infinite; check the encoder and its input"
            )
        with without_autocast(z):
            return self._encode(at_least_float32(z))

    def decode(
        self, indices: Shaped[Tensor, "*lead_and_index_shape"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the codes of `indices`, bit for bit those of `forward` in eval mode for a `z` of this dtype.

        Args:
            indices: Indices of any integer dtype, with the quantizer's `index_shape` as trailing axes.
            dtype: Dtype of the codes, such as that of the layer that gets them. None is float64 if the quantizer has
                parameters or buffers in float64, else float32.

        Raises:
            ValueError: If `indices` are not integers, their trailing axes are not `index_shape` or, except under
                `torch.compile`, an index is out of range.
        """
        whole = self._checked_indices(indices)
        dtype = dtype or self._own_precision()
        with without_autocast(indices):
            return self._decode(whole, computed_in(dtype)).to(dtype)

    @abstractmethod
    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        """Implements `forward` for a validated `z` in float32 or float64, outside of autocast."""

    @abstractmethod
    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_index_shape"]:
        """Implements `encode` for a validated, finite `z` in float32 or float64, outside of autocast."""

    @abstractmethod
    def _decode(
        self, indices: Int[Tensor, "*lead_and_index_shape"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        """Implements `decode` for validated int64 indices, outside of autocast; `dtype` is float32 or float64."""

    def prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Shows the codebooks the vectors from which they may initialise or revive codes, before a forward searches.

        Quantizers with a codebook or with inner quantizers override it; the inner ones get what they would
        quantize. Only the first vectors that a codebook is shown in a forward matter, so a wrapper may call it with
        other vectors than it will quantize.

        Args:
            z: Vectors in float32 or float64, the code axis last.
            mask: True for the vectors that count; None if all do.
        """

    @property
    def needs_task_gradient(self) -> bool:
        """Whether some part learns, or has an effect, only by the gradient of the task and not by its own loss."""
        inner = [part for part in self.children() if isinstance(part, Quantizer | nn.ModuleList)]
        quantizers = [
            part for each in inner for part in (each if isinstance(each, nn.ModuleList) else [each])
        ]
        return any(part.needs_task_gradient for part in quantizers if isinstance(part, Quantizer))

    def _over_ranks(self, mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Weights a mean over this rank's unmasked vectors as part of the loss over all ranks (see Loss above)."""
        return self.event.weighted(mean) if self.training and self.event is not None else mean

    @classmethod
    @abstractmethod
    def example(cls) -> "Quantizer":
        """Returns a small instance, on which the contract tests run."""

    def _check_input(self, z: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."] | None) -> None:
        place = type(self).__name__
        if not z.is_floating_point():
            raise ValueError(
                f"{place}: expected z of a floating-point dtype, got {z.dtype}; if that is intended, convert it with "
                f".float()"
            )
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(
                f"{place}: expected a mask of the dtype torch.bool, got {mask.dtype}; convert it, for example with "
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
                f"the shape {tuple(z.shape)}; this quantizer takes features of one size only"
            )
        if mask is not None and mask.shape != z.shape[:lead]:
            raise ValueError(
                f"{type(self).__name__}: expected a mask of the shape {tuple(z.shape[:lead])}, the leading axes "
                f"of z, got {tuple(mask.shape)}"
            )

    def _checked_indices(self, indices: Shaped[Tensor, "..."]) -> Int[Tensor, "*lead_and_index_shape"]:
        """Validates dtype, shape and, except under `torch.compile`, range of indices; returns them as int64."""
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
                f"{lowest} to {highest}; check that they come from this codebook"
            )
        return indices

    def _own_precision(self) -> torch.dtype:
        """Returns float64 if a parameter or a buffer has that dtype, else float32."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def learnable(z: Float[Tensor, "n dim"], mask: Bool[Tensor, "*lead"] | None) -> Bool[Tensor, "n"]:
    """Returns True for the vectors that may change state: those that the mask keeps and that are finite."""
    # One sum instead of a comparison of every element: the sum is not finite if an element is not.
    is_finite = z.detach().sum(dim=-1).isfinite()
    return is_finite if mask is None else is_finite & mask.reshape(-1)
