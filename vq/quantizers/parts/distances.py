"""What "nearest" means: the geometry in which vectors and codes are compared."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from vq.ops.directions import SHORTEST, unit
from vq.ops.distance import nearest_code
from vq.registry import QUANTIZER_PARTS


class Distance(ABC):
    """A geometry: where vectors and codes are put before they meet, and which code is nearest."""

    @abstractmethod
    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Puts vectors or codes where they are compared; differentiable."""

    @abstractmethod
    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """For each placed vector the int64 index of the nearest placed code; the lowest of equals."""


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class EuclideanDistance(Distance):
    """Compares vectors and codes where they are, by squared Euclidean distance."""

    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The same tensor."""
        return x

    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """The index of the code with the smallest |z - e|."""
        return nearest_code(z, codes)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class CosineDistance(Distance):
    """Puts vectors and codes on the unit sphere and compares them there; codes come out with length 1.

    A vector of zeros has no direction: it stays one, and has no gradient. Below a length of `eps` the gradient
    fades (see `vq.ops.directions.unit`).

    Source: Yu et al. 2022 (ViT-VQGAN), https://arxiv.org/abs/2110.04627, section 3.2.

    Args:
        eps: The length from which on the gradient is exact; 1 / eps is the most that it can be multiplied by.

    Raises:
        ValueError: If `eps` is not positive.
    """

    eps: float = SHORTEST

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"CosineDistance: expected a positive eps, got {self.eps}")

    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The vectors divided by their lengths."""
        return unit(x, shortest=self.eps)

    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """The index of the code with the largest cosine: on the sphere that is the nearest one."""
        return nearest_code(z, codes)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class DirectionDistance(Distance):
    """Chooses codes by their direction alone; vectors and codes keep their lengths.

    The losses compare `z` with the whole code, so a code learns the mean length of the vectors that chose
    it too, and `decode` gives that length back.

    Source: Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139, whose published
        implementation searches by cosine among codes of any length.
    Differs from the norm-preserving cosine search of vqtorch (arXiv 2305.08842): that hands on |z| times the
        unit code, which indices alone cannot give back. Here the length is the code's, and
        `decode(encode(z))` is the quantized vector.

    Args:
        eps: Of no effect, as no gradient passes the search; still taken, because stored configs have it.
    """

    eps: float = SHORTEST

    def place(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The same tensor."""
        return x

    def nearest(self, z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
        """The index of the code with the largest cosine."""
        # The length of z does not change which code wins, but a huge one would overflow.
        return nearest_code(unit(z.detach()), unit(codes.detach()))
