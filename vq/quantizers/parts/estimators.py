"""Gradient estimators: how the gradient of the task passes the choice of a code, which is not differentiable."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vq.ops.directions import unit
from vq.ops.gradients import replace_value, rotate
from vq.registry import QUANTIZER_PARTS


class Estimator(ABC):
    """Gives the selected codes a gradient to the vectors. The value is that of `code`, bit for bit."""

    @property
    def moves_codes(self) -> bool:
        """Whether the gradient of the task also reaches the codes, which then must learn by gradient."""
        return False

    @abstractmethod
    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the value of `code` with the gradient of this estimator to `z`, and possibly to `code`."""


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class StraightThrough(Estimator):
    """Passes the gradient of the quantized vectors to `z` unchanged.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, section 3.2.
    """

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the value of `code`, whose gradient goes to `z` unchanged."""
        return replace_value(z, code)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class RotationTrick(Estimator):
    """Passes the gradient to `z` after the rotation and scaling that map `z` to its code.

    Source: Fifty et al. 2024, https://arxiv.org/abs/2410.06424, section 4.2.
    Differs from the source: the value is the code itself, not its rotated approximation.
    """

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the value of `code`, whose gradient goes to `z` rotated and scaled."""
        return replace_value(rotate(z, code), code)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class Synchronised(Estimator):
    """Passes the gradient of the quantized vectors to `z`, and `nu` times the same gradient to the codes.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.2.

    Args:
        nu: Fraction of the gradient that the codes get; 0 is straight-through, the paper uses up to 2.
    """

    nu: float = 0.2

    @property
    def moves_codes(self) -> bool:
        """True unless `nu` is 0."""
        return self.nu != 0

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the value of `code`, whose gradient goes to `z` and, times `nu`, to `code`."""
        return replace_value(z + self.nu * code, code)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class DirectionalReparameterisation(Estimator):
    r"""Splits the gradient: its part along a noisy direction from `z` to the code moves the code (DiVeQ).

    The gradient is that of $q = z + |e - z|\, sg(v / |v|)$ with $v = e - z + n$ and n Gaussian of the variance
    $\sigma^2$ per channel. With $u = (e - z) / |e - z|$ and the gradient g of the quantized vectors, the code gets
    $(g \cdot v / |v|)\, u$ and `z` gets the rest of g. The task alone trains the codes, so neither a codebook loss nor
    a commitment loss is needed: with `train_step.weights.quantizer=0.0` the codes learn as in the paper. Codes that no
    vector chooses get no gradient; the paper replaces them, as a revival does.

    Source: Vali et al. 2025 (DiVeQ), https://arxiv.org/abs/2509.26469, the definition of z_q.
    Differs from the source: the value is the code itself. That of q differs from it by noise of about
        $\sigma \sqrt{dim}$. The authors' package diveq 0.1.3 draws noise of the deviation that it calls the variance.

    Args:
        variance: Variance of the noise of each channel; the paper uses 1e-3.

    Raises:
        ValueError: If `variance` is negative.
    """

    variance: float = 1e-3

    def __post_init__(self) -> None:
        if not self.variance >= 0:
            raise ValueError(
                f"DirectionalReparameterisation: expected a variance of 0 or more, got {self.variance}"
            )

    @property
    def moves_codes(self) -> bool:
        """True: the task moves the codes."""
        return True

    def __call__(
        self, z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"]
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the value of `code`, whose gradient goes to `z` and `code`."""
        error = code - z
        with torch.no_grad():
            towards_code = unit(error)
            direction = unit(error + self.variance**0.5 * torch.randn_like(error))
        distance = (error * towards_code).sum(
            dim=-1, keepdim=True
        )  # |e - z|, with the gradient 0 where e = z
        return replace_value(z + distance * direction, code)
