"""What the two sides of adversarial training want of the discriminator's logits; positive logits mean real."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.registry import ADVERSARIAL_PARTS


class AdversarialObjective(ABC):
    """The losses of the generator and of the discriminator, both to be lowered, as functions of logits."""

    @abstractmethod
    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """The logits of reconstructions to what the generator lowers: it wants them high."""

    @abstractmethod
    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """The logits of images and of reconstructions to what the discriminator lowers."""


@ADVERSARIAL_PARTS.register_module()
class HingeObjective(AdversarialObjective):
    """Stops pushing logits that are beyond a margin of 1 on the right side; what VQGAN and LlamaGen use.

    Source: Lim and Ye 2017, https://arxiv.org/abs/1705.02894, eq. 2 and 3.
    Differs from the source: the discriminator's sum is halved, as in VQGAN.

    Example:
        >>> import torch
        >>> HingeObjective().discriminator(torch.tensor([0.5]), torch.tensor([-3.0])).item()
        0.25
    """

    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """-E[fake]."""
        return -fake.mean()

    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """(E[max(0, 1 - real)] + E[max(0, 1 + fake)]) / 2."""
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


@ADVERSARIAL_PARTS.register_module()
class NonSaturatingObjective(AdversarialObjective):
    """Cross-entropy of real against reconstructed; the generator raises the probability of being taken for real.

    The gradient of the generator stays where the discriminator is sure of itself.

    Source: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, eq. 1 and the end of section 3.
    Differs from the source: the discriminator's sum is halved, as in VQGAN.

    Example:
        >>> import torch
        >>> round(NonSaturatingObjective().generator(torch.tensor([0.0])).item(), 4)
        0.6931
    """

    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """-E[log sigmoid(fake)]."""
        return F.softplus(-fake).mean()

    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """-(E[log sigmoid(real)] + E[log(1 - sigmoid(fake))]) / 2."""
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


@ADVERSARIAL_PARTS.register_module()
class VanillaObjective(AdversarialObjective):
    """Cross-entropy for the discriminator, as in `NonSaturatingObjective`; -E[fake] for the generator.

    What VQGAN's published code calls vanilla. (The minimax game of the first paper has E[log(1 - sigmoid(fake))]
    for the generator, whose gradient vanishes where the discriminator is sure of itself.)

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, the authors' code.
    """

    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """-E[fake]."""
        return -fake.mean()

    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """-(E[log sigmoid(real)] + E[log(1 - sigmoid(fake))]) / 2."""
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
