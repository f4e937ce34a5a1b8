"""The balance of two losses by the norms of their gradients."""

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
    r"""Computes the weight that makes the adversarial gradient `gain` times as long as that of the reconstruction.

    $\lambda = g \cdot \min(\|\nabla_L \mathcal{L}_{rec}\| / (\|\nabla_L \mathcal{L}_{GAN}\| + 10^{-4}), m)$, with
    both gradients at the decoder's last layer $L$. The norms are computed in float32 at least; the result has no
    gradient.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, eq. 7.
    Differs from the source: 1e-4 instead of the paper's 1e-6, and the clamp and the gain, as in the authors' code.

    Args:
        reconstruction_gradient: Gradient of the weighted reconstruction losses, without the quantizer's loss.
        adversarial_gradient: Gradient of the unweighted adversarial loss.
        gain: Length of the weighted adversarial gradient, relative to that of the reconstruction losses.
        maximum: Largest ratio of the lengths, before the gain.

    Example:
        >>> round(adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), gain=0.8).item(), 2)
        2.0
    """
    wide = torch.promote_types(reconstruction_gradient.dtype, torch.float32)
    wanted = torch.linalg.vector_norm(reconstruction_gradient.detach(), dtype=wide)
    found = torch.linalg.vector_norm(adversarial_gradient.detach(), dtype=wide)
    return gain * (wanted / (found + 1e-4)).clamp(0, maximum)
