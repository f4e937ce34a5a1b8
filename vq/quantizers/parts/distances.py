"""Distances: the geometry in which vectors and codes are compared."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from vq.ops.directions import SHORTEST, unit
from vq.ops.distance import nearest_code
from vq.registry import QUANTIZER_PARTS


class Distance(ABC):
    """Defines where vectors and codes are compared and which code is the nearest."""

    @abstractmethod
    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Maps vectors or codes to the space in which they are compared; differentiable."""

    @abstractmethod
    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """Returns for each mapped vector the int64 index of the nearest mapped code; the lowest one of ties."""


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class EuclideanDistance(Distance):
    """Compares vectors and codes by their squared Euclidean distance."""

    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Returns the tensor unchanged."""
        return x

    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """Returns for each vector the index of the code with the smallest |z - e|."""
        return nearest_code(z, codes)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class CosineDistance(Distance):
    """Compares vectors and codes on the unit sphere; the quantized vectors have length 1.

    A vector of zeros has no direction: it stays zero and gets no gradient. Below the length `eps` the gradient fades
    (see `vq.ops.directions.unit`).

    Source: Yu et al. 2022 (ViT-VQGAN), https://arxiv.org/abs/2110.04627, section 3.2.

    Args:
        eps: Smallest length at which the gradient is exact; 1 / eps is the largest factor of a gradient.

    Raises:
        ValueError: If `eps` is not positive.
    """

    eps: float = SHORTEST

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"CosineDistance: expected a positive eps, got {self.eps}")

    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Divides each vector by its length."""
        return unit(x, shortest=self.eps)

    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """Returns the index of the code with the largest cosine, which on the sphere is the nearest one."""
        return nearest_code(z, codes)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class DirectionDistance(Distance):
    """Chooses codes by their direction only; vectors and codes keep their lengths.

    The losses compare `z` with the whole code, so that a code also learns the mean length of the vectors that chose
    it, and `decode` returns that length.

    Source: Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139, whose published
        implementation searches by cosine among codes of any length.
    Differs from the norm-preserving cosine search of vqtorch (arXiv 2305.08842): that returns |z| times the unit
        code, which cannot be decoded from the index of a code alone (`NormPreservingQuantizer`). Here the length is
        that of the code, and `decode(encode(z))` is the quantized vector.

    Args:
        eps: Accepted for stored configs that have it; no gradient passes through the search, so it has no effect.
    """

    eps: float = SHORTEST

    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Returns the tensor unchanged."""
        return x

    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """Returns for each vector the index of the code with the largest cosine."""
        # The length of z does not change which code is chosen, but the products of a huge z would overflow.
        return nearest_code(unit(z.detach()), unit(codes.detach()))
