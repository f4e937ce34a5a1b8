"""Affine re-parameterisation: codes that share a scale and a shift, so that all of them follow a drift."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.ops.numerics.reductions import mean_square
from vq.quantizers.codebooks.clustered import ClusteredCodebook
from vq.quantizers.codebooks.learned import Codebook, LearnedCodebook
from vq.registry import CODEBOOKS

SMALLEST_SCALE = 1e-6
"""What is divided by where a learnt scale has come nearer to 0."""


@CODEBOOKS.register_module()
class AffineCodebook(Codebook):
    r"""Scales and shifts the codes of another codebook, all of a group alike, by learnt vectors.

    $e'_k = (1 + \alpha s_g) \odot e_k + \alpha b_g$ for the codes k of group g. s and b begin at 0, so at
    first nothing changes; the loss $|sg(z) - e'|^2$ moves them, and with them also the codes that no vector
    chose. The codes inside learn as they do: by the gradient of the same loss, or from averages, which are
    taken of the vectors before scale and shift.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.1, in the form with learnt
        scale and shift of its published implementation.
    Differs from the source: any init and revival of the codebook inside, which happen where z is.

    Args:
        codebook: The codes that are scaled and shifted: any codebook but a clustered or an affine one.
        groups: How many sets of consecutive codes have a scale and a shift of their own.
        rate: alpha, how much faster scale and shift learn than their plain gradient; the source uses 2 to 10.

    Raises:
        ValueError: If the groups do not divide the codes, or the codebook is of a kind that does not fit.
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
        """Sixteen learned codes of length 4 in two groups."""
        return cls(codebook=LearnedCodebook.example(), groups=2)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The codes inside, scaled and shifted; computed at each call."""
        codes = self.codebook.codes
        if torch.is_grad_enabled() and not codes.requires_grad:
            codes = codes.clone()  # averages move in `update`, before the backward needs what they were
        grouped = codes.view(self.groups, -1, self.dim)
        scale, shift = 1 + self.rate * self.scale, self.rate * self.shift
        return (scale[:, None] * grouped + shift[:, None]).view(self.size, self.dim)

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean squared difference, with a gradient to scale and shift, and to codes that have one."""
        return mean_square(code, z.detach(), mask)

    def _searched(self) -> Tensor | None:
        return None  # the codes inside are remembered, scale and shift have not moved

    def _inside(self, vectors: Float[Tensor, "n dim"], indices: Int[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Vectors before the scale and shift of the code that stands beside each."""
        group = indices // (self.size // self.groups)
        scale, shift = 1 + self.rate * self.scale, self.rate * self.shift
        scale = torch.where(scale.abs() < SMALLEST_SCALE, SMALLEST_SCALE, scale)
        return (vectors - shift[group]) / scale[group]

    def _statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Tensor | None:
        return self.codebook._statistics(self._inside(z, indices), indices, mask)

    def _learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        self.codebook._learn(counts, sums)

    def _usage(self) -> Float[Tensor, "size"]:
        return self.codebook._usage()

    def _place(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        every = torch.arange(self.size, device=vectors.device)
        # There and back again would change the last digits of codes that have not moved.
        inside = torch.where(is_moved[:, None], self._inside(vectors, every), self.codebook.vectors)
        self.codebook._place(inside, usage, is_moved)
        self.codebook.initialised.fill_(1)
