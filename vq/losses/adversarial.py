"""Objectives of the two sides of adversarial training on the discriminator's logits; positive logits mean real."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.registry import ADVERSARIAL_PARTS


class AdversarialObjective(ABC):
    """Defines the losses of the generator and of the discriminator as functions of logits."""

    @abstractmethod
    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """Computes the loss of the generator from the logits of reconstructions: it falls as they rise."""

    @abstractmethod
    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """Computes the loss of the discriminator from the logits of images and of reconstructions."""


@ADVERSARIAL_PARTS.register_module()
class HingeObjective(AdversarialObjective):
    """Ignores logits that are beyond a margin of 1 on the correct side; used by VQGAN and LlamaGen.

    Source: Lim and Ye 2017, https://arxiv.org/abs/1705.02894, eq. 2 and 3.
    Differs from the source: the discriminator's sum is halved, as in VQGAN.

    Example:
        >>> import torch
        >>> HingeObjective().discriminator(torch.tensor([0.5]), torch.tensor([-3.0])).item()
        0.25
    """

    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """Computes -E[fake]."""
        return -fake.mean()

    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """Computes (E[max(0, 1 - real)] + E[max(0, 1 + fake)]) / 2."""
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


@ADVERSARIAL_PARTS.register_module()
class NonSaturatingObjective(AdversarialObjective):
    """Uses the cross-entropy of real against reconstructed; the generator raises the probability of real.

    The gradient of the generator does not vanish where the discriminator is certain.

    Source: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, eq. 1 and the end of section 3.
    Differs from the source: the discriminator's sum is halved, as in VQGAN.

    Example:
        >>> import torch
        >>> round(NonSaturatingObjective().generator(torch.tensor([0.0])).item(), 4)
        0.6931
    """

    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """Computes -E[log sigmoid(fake)]."""
        return F.softplus(-fake).mean()

    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """Computes -(E[log sigmoid(real)] + E[log(1 - sigmoid(fake))]) / 2."""
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


@ADVERSARIAL_PARTS.register_module()
class VanillaObjective(AdversarialObjective):
    """Uses cross-entropy for the discriminator, as `NonSaturatingObjective` does, and -E[fake] for the generator.

    This is what VQGAN's published code calls vanilla. (In the minimax game of the first paper the loss of the
    generator is E[log(1 - sigmoid(fake))], whose gradient vanishes where the discriminator is certain.)

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, the authors' code.
    """

    def generator(self, fake: Float[Tensor, "b *patches"]) -> Float[Tensor, ""]:
        """Computes -E[fake]."""
        return -fake.mean()

    def discriminator(
        self, real: Float[Tensor, "b *patches"], fake: Float[Tensor, "b *patches"]
    ) -> Float[Tensor, ""]:
        """Computes -(E[log sigmoid(real)] + E[log(1 - sigmoid(fake))]) / 2."""
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
