"""How heavy one loss must be to pull as hard as another."""

import torch
from jaxtyping import Float
from torch import Tensor


def adaptive_weight(
    reconstruction_gradient: Float[Tensor, "*shape"],
    adversarial_gradient: Float[Tensor, "*shape"],
    *,
    gain: float = 0.8,
    maximum: float = 1e4,
) -> Float[Tensor, ""]:
    r"""The weight at which the adversarial loss pulls `gain` times as hard as the reconstruction losses.

    $\lambda = g \cdot \min(\|\nabla_L \mathcal{L}_{rec}\| / (\|\nabla_L \mathcal{L}_{GAN}\| + 10^{-4}), m)$, with both
    gradients at the decoder's last layer $L$; the norms are float32 at least, and no gradient flows.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, eq. 7.
    Differs from the source: 1e-4 for the paper's 1e-6, and the clamp and the gain, as in the authors' code.

    Args:
        reconstruction_gradient: Of the weighted reconstruction losses, the quantizer's own not among them.
        adversarial_gradient: Of the unweighted adversarial loss.
        gain: How hard, relative to the reconstruction losses.
        maximum: Of the ratio, before the gain.

    Example:
        >>> round(adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), gain=0.8).item(), 2)
        2.0
    """
    wide = torch.promote_types(reconstruction_gradient.dtype, torch.float32)
    wanted = torch.linalg.vector_norm(reconstruction_gradient.detach(), dtype=wide)
    found = torch.linalg.vector_norm(adversarial_gradient.detach(), dtype=wide)
    weight: Tensor = gain * (wanted / (found + 1e-4)).clamp(0, maximum)
    return weight
