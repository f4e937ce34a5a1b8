"""How the gradient of the task passes the choice of a code, which itself has none."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vq.ops.gradients import replace_value, rotate
from vq.registry import QUANTIZER_PARTS


class Estimator(ABC):
    """Gives the codes a gradient. The value is always that of `code`, bit for bit."""

    @property
    def moves_codes(self) -> bool:
        """Whether the gradient of the task reaches the codes too, which then must learn by gradient."""
        return False

    @abstractmethod
    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """The value of `code` with this estimator's gradient to `z`, and possibly to `code`."""


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class StraightThrough(Estimator):
    """Hands the gradient of the codes to `z` unchanged.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, section 3.2.
    """

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """The value of `code`, the gradient to `z`."""
        return replace_value(z, code)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class RotationTrick(Estimator):
    """Hands the gradient of the codes to `z` rotated and scaled as `z` was to become its code.

    Source: Fifty et al. 2024, https://arxiv.org/abs/2410.06424, section 4.2.
    Differs from the source: the value is the code itself, not its rotated approximation.
    """

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """The value of `code`, the rotated gradient to `z`."""
        return replace_value(rotate(z, code), code)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class Synchronised(Estimator):
    """Hands the gradient of the codes to `z`, and `nu` times the same gradient to the codes.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.2.

    Args:
        nu: The share that the codes get; 0 is straight-through, the paper uses up to 2.
    """

    nu: float = 0.2

    @property
    def moves_codes(self) -> bool:
        """Unless `nu` is 0."""
        return self.nu != 0

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """The value of `code`, the gradient to `z` and to `code`."""
        return replace_value(z + self.nu * code, code)
