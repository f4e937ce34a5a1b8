"""Affine reparameterisation: codes that share a learned scale and shift, so that all of them follow a drift of z."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.ops.numerics.reductions import mean_square
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.codebooks.clustered import ClusteredCodebook
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.registry import CODEBOOKS

SMALLEST_SCALE = 1e-6
"""Divisor used in place of a learned scale whose absolute value is smaller."""


@CODEBOOKS.register_module()
class AffineCodebook(Codebook):
    r"""Scales and shifts the codes of another codebook by learned vectors that a group of codes shares.

    The codes k of group g become $e'_k = (1 + \alpha s_g) \odot e_k + \alpha b_g$. s and b begin at 0, so that the
    codes are unchanged at first. The loss $|sg(z) - e'|^2$ moves s and b, and with them also the codes that no vector
    chose. The inner codes learn as they would alone: by the gradient of the same loss, or from averages, which are
    taken of the vectors before scale and shift.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.1, in the form with learned
        scale and shift of its published implementation.
    Differs from the source: the inner codebook may have any initialization and revival, which place the scaled and
        shifted codes where the vectors are.

    Args:
        codebook: Codebook whose codes are scaled and shifted; neither clustered nor affine.
        groups: Number of sets of consecutive codes with a scale and a shift of their own; a divisor of the codes.
        rate: Factor alpha by which scale and shift learn faster than by their plain gradient; the source uses 2
            to 10.

    Raises:
        ValueError: If `groups` does not divide the number of codes, or the codebook is clustered or affine.
    """

    def __init__(self, *, codebook: Codebook, groups: int = 1, rate: float = 1.0) -> None:
        super().__init__(size=codebook.size, dim=codebook.dim, init=codebook.init, revival=codebook.revival)
        if isinstance(codebook, ClusteredCodebook | AffineCodebook):
            raise ValueError(
                f"AffineCodebook: expected a codebook that is not clustered or affine itself, got "
                f"{type(codebook).__name__}; use LearnedCodebook or EMACodebook"
            )
        if groups < 1 or codebook.size % groups:
            raise ValueError(
                f"AffineCodebook: expected groups that divide the {codebook.size} codes, got {groups}"
            )
        self.codebook, self.groups, self.rate = codebook, groups, rate
        self.scale = nn.Parameter(torch.zeros(groups, codebook.dim))
        self.shift = nn.Parameter(torch.zeros(groups, codebook.dim))

    @classmethod
    def example(cls) -> "AffineCodebook":
        """Returns 16 learned codes of length 4 in two groups."""
        return cls(codebook=LearnedCodebook.example(), groups=2)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The inner codes, scaled and shifted; computed at each access."""
        codes = self.codebook.codes
        if torch.is_grad_enabled() and not codes.requires_grad:
            codes = codes.clone()  # the backward needs these values, and `update` moves averages before it
        grouped = codes.view(self.groups, -1, self.dim)
        scale, shift = 1 + self.rate * self.scale, self.rate * self.shift
        return (scale[:, None] * grouped + shift[:, None]).view(self.size, self.dim)

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference, with a gradient to scale, shift and learned inner codes."""
        return mean_square(code, z.detach(), mask)

    def _searched(self) -> None:
        return None  # the inner codebook remembers its codes; scale and shift have not moved

    def _inner(self, vectors: Float[Tensor, "n dim"], indices: Int[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Maps each vector back through the scale and shift of its code."""
        group = indices // (self.size // self.groups)
        scale, shift = 1 + self.rate * self.scale, self.rate * self.shift
        scale = torch.where(scale.abs() < SMALLEST_SCALE, SMALLEST_SCALE, scale)
        return (vectors - shift[group]) / scale[group]

    def statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Float[Tensor, "flat"] | None:
        """Computes what the inner codebook counts and sums, from the vectors before scale and shift."""
        return self.codebook.statistics(self._inner(z, indices), indices, mask)

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        """Updates the inner codes."""
        self.codebook.learn(counts, sums)

    def average_usage(self) -> Float[Tensor, "size"]:
        """Returns the average usage of the inner codes."""
        return self.codebook.average_usage()

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the inner codes so that, scaled and shifted, the moved ones equal `vectors`."""
        every = torch.arange(self.size, device=vectors.device)
        # Codes that have not moved keep their inner value: mapping them back would change their last digits.
        inner = torch.where(is_moved[:, None], self._inner(vectors, every), self.codebook.vectors)
        self.codebook.set_codes(inner, usage, is_moved)
        self.codebook.initialised.fill_(1)
