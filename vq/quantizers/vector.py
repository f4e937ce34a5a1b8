"""Vector quantization: the nearest code of a codebook (VQ-VAE and its variants)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vq.ops.gradients import replace_value
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer, learnable
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.quantizers.parts.distances import Distance, EuclideanDistance
from vq.quantizers.parts.estimators import Estimator, StraightThrough
from vq.quantizers.parts.regularisers import Regulariser
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class VectorQuantizer(Quantizer):
    """Replaces each vector by the nearest code of a codebook (VQ).

    The loss is that of the codebook plus `commitment_weight` times the mean of $(z - sg(e))^2$.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, eq. 1 to 3.
    Differs from the source: squared differences are averaged over the channels too, not summed.

    Args:
        codebook: Codebook that holds and learns the codes.
        commitment_weight: Weight beta of eq. 3; the paper uses 0.25.
        estimator: Estimator of the gradient to `z`; None is `StraightThrough()`.
        distance: Distance that defines the nearest code; None is `EuclideanDistance()`. With `CosineDistance`
            vectors and codes have length 1 throughout.
        regularisers: Further loss terms on the codes, such as `EntropyRegulariser`. For codes without a gradient,
            such as averages, they move `z` alone, or measure only, as `OrthogonalRegulariser` does.

    Raises:
        ValueError: If the estimator has a gradient for the codes, and they do not learn by gradient.

    Example:
        >>> import torch
        >>> quantizer = VectorQuantizer(codebook=LearnedCodebook(size=512, dim=64))
        >>> quantizer(torch.randn(2, 8, 8, 64)).indices.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        *,
        codebook: Codebook,
        commitment_weight: float = 0.25,
        estimator: Estimator | None = None,
        distance: Distance | None = None,
        regularisers: Sequence[Regulariser] = (),
    ) -> None:
        super().__init__()
        self.codebook = codebook
        self.regularisers = tuple(regularisers)
        self.commitment_weight = commitment_weight
        self.estimator = estimator or StraightThrough()
        if self.estimator.moves_codes and not codebook.learns_by_gradient:
            raise ValueError(
                f"VectorQuantizer: expected a codebook that learns by gradient for {type(self.estimator).__name__}, "
                f"got {type(codebook).__name__}, on whose codes it has no effect; use LearnedCodebook, or leave the "
                f"estimator out"
            )
        self.distance = distance or EuclideanDistance()
        self.codebook_size, self.codebook_dim = codebook.size, codebook.dim
        self._chosen: Tensor | None = None

    @classmethod
    def example(cls) -> "VectorQuantizer":
        """Returns a quantizer with 16 learned codes of length 4."""
        return cls(codebook=LearnedCodebook.example())

    @property
    def needs_task_gradient(self) -> bool:
        """Whether the estimator differs from `StraightThrough`."""
        return not isinstance(self.estimator, StraightThrough)

    def quantize_with(
        self, z: Float[Tensor, "*lead dim"], indices: Int[Tensor, "*lead"], mask: Bool[Tensor, "*lead"] | None
    ) -> QuantizeOutput:
        """Does the same as `forward` with these codes instead of the nearest ones.

        A quantizer around this one that has searched by itself calls it in its own forward.

        Args:
            z: Vectors in float32 or float64.
            indices: The code of each vector.
            mask: True for the vectors that count; None if all do.
        """
        self._chosen = indices
        try:
            output: QuantizeOutput = self(z, mask)  # not `_forward`, so that hooks see the call
        finally:
            self._chosen = None
        return output

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        vectors = self.distance.place(z.reshape(-1, self.codebook_dim))
        counted = None if mask is None else mask.reshape(-1)
        usable = learnable(vectors, mask)
        if self.training:
            self.codebook.prepare(vectors, usable)
        codes = self._codes(z.dtype)
        if self.regularisers and self.training and not codes.requires_grad:
            codes = codes.clone()  # the backward needs these values, and averages move before it
        chosen = self._chosen
        indices = self.distance.nearest(vectors, codes) if chosen is None else chosen.reshape(-1)
        code = F.embedding(indices, codes)
        if self.training:
            self.codebook.update(vectors, indices, usable)
        codebook_loss = self._over_ranks(self.codebook.loss(vectors, code, counted))
        commitment_loss = self._over_ranks(mean_square(vectors, code.detach(), counted))
        loss = codebook_loss + self.commitment_weight * commitment_loss
        metrics = {"codebook_loss": codebook_loss.detach(), "commitment_loss": commitment_loss.detach()}
        for regulariser in self.regularisers:
            term, scalars = regulariser(vectors, codes, indices, counted, across_ranks=self.training)
            loss, metrics = loss + term, metrics | dict(scalars)
        return QuantizeOutput(
            quantized=self._with_gradient(vectors, code).view(z.shape),
            indices=indices.view(z.shape[:-1]),
            loss=loss,
            metrics=metrics,
        )

    def _with_gradient(
        self, vectors: Float[Tensor, "n dim"], code: Float[Tensor, "n dim"]
    ) -> Float[Tensor, "n dim"]:
        # An estimator may draw random numbers. A training forward that autograd repeats must draw them both times,
        # and evaluation draws none.
        if self.training or torch.is_grad_enabled():
            return self.estimator(vectors, code)
        return replace_value(vectors, code)

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Initialises or revives codes from these vectors in training mode."""
        if self.training:
            vectors = self.distance.place(z.detach().reshape(-1, self.codebook_dim))
            self.codebook.prepare(vectors, learnable(vectors, mask))

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = self.distance.place(z.reshape(-1, self.codebook_dim))
        return self.distance.nearest(vectors, self._codes(z.dtype)).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self._codes(dtype))

    def _codes(self, dtype: torch.dtype) -> Float[Tensor, "size dim"]:
        """Returns the codes in the space in which they are compared, in float32 or float64."""
        return self.distance.place(self.codebook.codes.to(dtype))
