"""What keeps a discriminator from becoming too sure of itself: penalties on its gradients and logits."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.ops.numerics.precision import at_least_float32
from vq.registry import ADVERSARIAL_PARTS

Judge = Callable[[Tensor], Tensor]


class DiscriminatorPenalty(nn.Module, ABC):
    """Adds to the discriminator's loss; unweighted, its weight stands in the train step's config.

    Attributes:
        every: Steps between two uses; a penalty that is used every n-th step counts n times.
    """

    every: int = 1

    @abstractmethod
    def forward(
        self,
        *,
        judge: Judge,
        image: Float[Tensor, "b 3 h w"],
        reconstruction: Float[Tensor, "b 3 h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """The discriminator, what it sees (in [-1, 1]) and what it says to the penalty."""

    def update(self, real: Float[Tensor, ""], fake: Float[Tensor, ""]) -> None:
        """Takes note of a step's mean logits, over micro-batches and ranks; most penalties need not."""


@ADVERSARIAL_PARTS.register_module()
class R1Penalty(DiscriminatorPenalty):
    """Penalises the squared gradient of the discriminator at real images.

    Where logits are many, an image's score is their mean.

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
        image: Float[Tensor, "b 3 h w"],
        reconstruction: Float[Tensor, "b 3 h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """The mean over images of the squared 2-norm of the gradient."""
        return _gradient(judge, image).square().sum(dim=1).mean()


@ADVERSARIAL_PARTS.register_module()
class GradientPenalty(DiscriminatorPenalty):
    """Pulls the length of the discriminator's gradient to 1 between images and reconstructions (WGAN-GP).

    The points lie at random places on the straight lines between each image and its reconstruction.

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
        image: Float[Tensor, "b 3 h w"],
        reconstruction: Float[Tensor, "b 3 h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """The mean over images of the squared distance of the gradient's 2-norm from 1."""
        place = torch.rand(len(image), 1, 1, 1, device=image.device, dtype=image.dtype)
        gradient = _gradient(judge, torch.lerp(reconstruction.detach(), image, place))
        apart: Tensor = gradient.norm(dim=1) - 1
        return apart.square().mean()


@ADVERSARIAL_PARTS.register_module()
class LeCAMPenalty(DiscriminatorPenalty):
    """Keeps the logits of each side near the running mean of the other side's (LeCAM).

    Its two running means are part of the training state. They follow once an optimizer step, over all
    micro-batches and ranks; the first step sets them, and its penalty is 0.

    Source: Tseng et al. 2021, https://arxiv.org/abs/2104.03310, eq. 4 and 5.

    Args:
        decay: Of the running means, in [0, 1).

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
        self.register_buffer("anchors", torch.zeros(2))  # of real, of fake
        self.register_buffer("has_anchors", torch.zeros(()))

    def forward(
        self,
        *,
        judge: Judge,
        image: Float[Tensor, "b 3 h w"],
        reconstruction: Float[Tensor, "b 3 h w"],
        real: Float[Tensor, "b *patches"],
        fake: Float[Tensor, "b *patches"],
    ) -> Float[Tensor, ""]:
        """E[(real - anchor of fake)^2] + E[(fake - anchor of real)^2]."""
        anchor_real, anchor_fake = self.anchors.unbind()
        apart = (real - anchor_fake).square().mean() + (fake - anchor_real).square().mean()
        return apart * self.has_anchors

    @torch.no_grad()
    def update(self, real: Float[Tensor, ""], fake: Float[Tensor, ""]) -> None:
        """Moves the running means towards a step's mean logits."""
        new = torch.stack([real, fake]).to(self.anchors)
        moved = torch.lerp(new, self.anchors, self.decay)
        self.anchors.copy_(torch.where(self.has_anchors > 0, moved, new))
        self.has_anchors.fill_(1)


def _gradient(judge: Judge, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b pixels"]:
    """The gradient of each image's score, with a graph so that it can itself be lowered; not in half precision."""
    with torch.autocast(image.device.type, enabled=False):
        seen = at_least_float32(image.detach()).requires_grad_()
        score = judge(seen).flatten(1).mean(dim=1)
        (gradient,) = torch.autograd.grad(score.sum(), seen, create_graph=True)
    return gradient.flatten(1)


def _checked_every(place: str, every: int) -> int:
    if every < 1:
        raise ValueError(f"{place}: expected every to be at least 1, got {every}; 1 is every step")
    return every
