"""Vector quantization: the nearest vector of a codebook (VQ-VAE and its kin)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer, learnable
from vq.quantizers.codebooks.learned import Codebook, LearnedCodebook
from vq.quantizers.parts.distances import Distance, EuclideanDistance
from vq.quantizers.parts.estimators import Estimator, StraightThrough
from vq.quantizers.parts.regularisers import Regulariser
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class VectorQuantizer(Quantizer):
    r"""Replaces each vector by the nearest code of a codebook (VQ).

    The loss is the codebook's own plus `commitment_weight` times the mean of $(z - sg(e))^2$.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, eq. 1 to 3.
    Differs from the source: squared differences are averaged over the channels too, not summed.

    Args:
        codebook: How the codes are kept and learn.
        commitment_weight: beta of eq. 3; the paper uses 0.25.
        estimator: How the gradient of the task reaches `z`.
        distance: What "nearest" means. With `CosineDistance` vectors and codes have length 1 throughout.
        regularisers: Further objectives on the codes, such as `EntropyRegulariser`; added to the loss. Over codes
            without a gradient, such as averages, they move `z` alone, or as `OrthogonalRegulariser` only measure.

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
                f"which has no effect on the codes of {type(codebook).__name__}; use LearnedCodebook, or leave the "
                f"estimator out"
            )
        self.distance = distance or EuclideanDistance()
        self.codebook_size, self.codebook_dim = codebook.size, codebook.dim

    @classmethod
    def example(cls) -> "VectorQuantizer":
        """Sixteen learned codes of length 4."""
        return cls(codebook=LearnedCodebook.example())

    @property
    def needs_task_gradient(self) -> bool:
        """Whether the estimator does anything but hand the gradient straight through."""
        return not isinstance(self.estimator, StraightThrough)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        vectors = self.distance.place(z.reshape(-1, self.codebook_dim))
        counted = None if mask is None else mask.reshape(-1)
        usable = learnable(vectors, mask)
        if self.training:
            self.codebook.prepare(vectors, usable)
        codes = self._codes(z.dtype)
        if self.regularisers and self.training and not codes.requires_grad:
            codes = codes.clone()  # what is kept for a backward, and averages move before it
        indices = self.distance.nearest(vectors, codes)
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
            quantized=self.estimator(vectors, code).view(z.shape),
            indices=indices.view(z.shape[:-1]),
            loss=loss,
            metrics=metrics,
        )

    @torch.no_grad()
    def _prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        if self.training:
            vectors = self.distance.place(z.detach().reshape(-1, self.codebook_dim))
            self.codebook.prepare(vectors, learnable(vectors, mask))

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = self.distance.place(z.reshape(-1, self.codebook_dim))
        return self.distance.nearest(vectors, self._codes(z.dtype)).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self._codes(dtype))

    def _codes(self, dtype: torch.dtype) -> Float[Tensor, "size dim"]:
        """The codes where they are compared, in float32 or float64."""
        return self.distance.place(self.codebook.codes.to(dtype))
