"""Batch normalization over the batches of all ranks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vq import distributed
from vq.ops.numerics.precision import at_least_float32


class _Synced(_BatchNorm):
    """What the layers below share: statistics of each channel, axis 1, over the batches of all ranks.

    With one process it is PyTorch's own layer; its state dict always has the same keys. With several processes
    the result, including gradients, is that of one process for their concatenated batches. It works on any device
    (PyTorch's own synchronised layer does not support the CPU) and through second derivatives, as gradient
    penalties need them. Every rank must run it equally often.
    """

    def forward(self, x: Float[Tensor, "b c *position"]) -> Float[Tensor, "b c *position"]:
        """Returns features of the same shape; in training mode it also updates the running statistics."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        values = at_least_float32(x)
        axes, channels = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = _sum_over_ranks(torch.cat([values.sum(dim=axes), count]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = values - mean.view(channels)
        # Two passes: the mean of squares minus the square of the mean would lose digits.
        variance = _sum_over_ranks(centred.square().sum(dim=axes)) / count
        self._track(mean.detach(), (variance * count / (count - 1).clamp_min(1)).detach())
        normed = centred * torch.rsqrt(variance + self.eps).view(channels)
        if self.affine:
            normed = normed * self.weight.view(channels) + self.bias.view(channels)
        return normed.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, "c"], variance: Float[Tensor, "c"]) -> None:
        momentum = 0.1 if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value.to(running.dtype), momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """Normalizes each feature over the batch of all ranks to mean 0 and variance 1.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1.
    Differs from the source: without the learned scale and shift, for the linear layer that follows has its own.

    Args:
        features: Number of features.
        eps: Added to the variance.
    """

    def __init__(self, *, features: int, eps: float = 1e-5) -> None:
        super().__init__(features, eps=eps, affine=False)


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """Normalizes each channel over the batch of all ranks to mean 0 and variance 1, then scales and shifts it.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1.

    Args:
        channels: Number of channels of the features.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__(channels)


def init_like_dcgan(module: nn.Module) -> None:
    """Draws the weights of convolutions from N(0, 0.02) and of batch norms from N(1, 0.02), and sets the biases to 0.

    Source: Radford et al. 2016, https://arxiv.org/abs/1511.06434, section 4.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class _SumOverRanks(torch.autograd.Function):
    """Sums over ranks. The input of a rank affects the loss of every rank, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return distributed.all_reduce_sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _sum_over_ranks(gradients[0])


def _sum_over_ranks(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return _SumOverRanks.apply(x)


__all__ = ["SyncedBatchNorm1d", "SyncedBatchNorm2d", "init_like_dcgan"]
