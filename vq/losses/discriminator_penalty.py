"""Penalties on the gradients and logits of a discriminator, which keep it from becoming too certain."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.ops.numerics.precision import at_least_float32
from vq.registry import ADVERSARIAL_PARTS

Judge = Callable[[Float[Tensor, "b channels h w"]], Float[Tensor, "b *patches"]]
"""A discriminator: maps images to logits."""


class DiscriminatorPenalty(nn.Module, ABC):
    """Computes a further term of the discriminator's loss.

    A penalty is unweighted; its weight is set in the config of the train step.

    Attributes:
        every: Steps between two uses. A penalty that is used every n-th step counts n times.
    """

    every: int = 1

    @abstractmethod
    def forward(
        self,
        *,
        judge: Judge,
        image: Float[Tensor, "b channels h w"],
        reconstruction: Float[Tensor, "b channels h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """Computes the penalty.

        Args:
            judge: Discriminator, which maps images to logits.
            image: Images in [-1, 1].
            reconstruction: Reconstructions in [-1, 1].
            real: Logits of the images.
            fake: Logits of the reconstructions.
        """

    def update(self, real: Float[Tensor, ""], fake: Float[Tensor, ""]) -> None:
        """Receives the mean logits of a step over micro-batches and ranks; most penalties ignore them."""


@ADVERSARIAL_PARTS.register_module()
class R1Penalty(DiscriminatorPenalty):
    """Penalises the squared gradient of the discriminator at real images.

    If an image has many logits, its score is their mean.

    Source: Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, eq. 9; used every n-th step:
        Karras et al. 2020, https://arxiv.org/abs/1912.04958, section 3.1.
    Differs from the source: no factor 1/2; the weight is the paper's gamma / 2.

    Args:
        every: Steps between two uses.

    Raises:
        ValueError: If `every` is below 1.
    """

    def __init__(self, *, every: int = 16) -> None:
        super().__init__()
        self.every = _checked_every("R1Penalty", every)

    def forward(
        self,
        *,
        judge: Judge,
        image: Float[Tensor, "b channels h w"],
        reconstruction: Float[Tensor, "b channels h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """Computes the mean over images of the squared 2-norm of the gradient."""
        return _gradient(judge, image).square().sum(dim=1).mean()


@ADVERSARIAL_PARTS.register_module()
class GradientPenalty(DiscriminatorPenalty):
    """Pulls the length of the discriminator's gradient to 1 between images and reconstructions (WGAN-GP).

    The gradient is taken at a random point on the straight line between each image and its reconstruction.

    Source: Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, eq. 3.

    Args:
        every: Steps between two uses.

    Raises:
        ValueError: If `every` is below 1.
    """

    def __init__(self, *, every: int = 1) -> None:
        super().__init__()
        self.every = _checked_every("GradientPenalty", every)

    def forward(
        self,
        *,
        judge: Judge,
        image: Float[Tensor, "b channels h w"],
        reconstruction: Float[Tensor, "b channels h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """Computes the mean over images of the squared distance of the gradient's 2-norm from 1."""
        fraction = torch.rand(len(image), 1, 1, 1, device=image.device, dtype=image.dtype)
        gradient = _gradient(judge, torch.lerp(reconstruction.detach(), image, fraction))
        return (gradient.norm(dim=1) - 1).square().mean()


@ADVERSARIAL_PARTS.register_module()
class LeCAMPenalty(DiscriminatorPenalty):
    """Keeps the logits of each side near the running mean of the other side's logits (LeCAM).

    The two running means are part of the training state. They are updated once per optimizer step, from all
    micro-batches and ranks. The first step sets them, and its penalty is 0.

    Source: Tseng et al. 2021, https://arxiv.org/abs/2104.03310, eq. 4 and 5.

    Args:
        decay: Fraction of the running means that is kept in each step, in [0, 1).

    Raises:
        ValueError: If the decay is outside [0, 1).
    """

    anchors: Tensor
    has_anchors: Tensor

    def __init__(self, *, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"LeCAMPenalty: expected a decay in [0, 1), got {decay}; 0.99 is the paper's")
        self.decay = decay
        self.register_buffer("anchors", torch.zeros(2))  # running means of the real and the fake logits
        self.register_buffer("has_anchors", torch.zeros(()))

    def forward(
        self,
        *,
        judge: Judge,
        image: Float[Tensor, "b channels h w"],
        reconstruction: Float[Tensor, "b channels h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """Computes E[(real - anchor of fake)^2] + E[(fake - anchor of real)^2]."""
        anchor_real, anchor_fake = self.anchors.unbind()
        apart = (real - anchor_fake).square().mean() + (fake - anchor_real).square().mean()
        return apart * self.has_anchors

    @torch.no_grad()
    def update(self, real: Float[Tensor, ""], fake: Float[Tensor, ""]) -> None:
        """Moves the running means towards the mean logits of a step."""
        new = torch.stack([real, fake]).to(self.anchors)
        moved = torch.lerp(new, self.anchors, self.decay)
        self.anchors.copy_(torch.where(self.has_anchors > 0, moved, new))
        self.has_anchors.fill_(1)


def _gradient(judge: Judge, image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b pixels"]:
    """Computes the gradient of each image's score, itself differentiable, in float32 at least."""
    with torch.autocast(image.device.type, enabled=False):
        seen = at_least_float32(image.detach()).requires_grad_()
        score = judge(seen).flatten(1).mean(dim=1)
        (gradient,) = torch.autograd.grad(score.sum(), seen, create_graph=True)
    return gradient.flatten(1)


def _checked_every(place: str, every: int) -> int:
    if every < 1:
        raise ValueError(
            f"{place}: expected every to be at least 1, got {every}; 1 uses the penalty in every step"
        )
    return every
