"""Batch normalization over the batches of all ranks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq import distributed
from vq.ops.numerics.precision import at_least_float32


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Normalizes each channel over the batch of all ranks to mean 0 and variance 1, then scales and shifts it.

    With one process it is `torch.nn.BatchNorm2d`; its state dict always has the same keys. With several processes
    the result, including gradients, is that of one process for their concatenated batches. It works on any device
    (PyTorch's own synchronised layer does not support the CPU) and through second derivatives, as gradient
    penalties need them. Every rank must run it equally often.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1.

    Args:
        channels: Number of channels of the features.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape; in training mode it also updates the running statistics."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        values = at_least_float32(x)
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = _sum_over_ranks(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = values - mean[:, None, None]
        # Two passes: the mean of squares minus the square of the mean would lose digits.
        variance = _sum_over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), (variance * count / (count - 1).clamp_min(1)).detach())
        normed = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, "c"], variance: Float[Tensor, "c"]) -> None:
        momentum = 0.1 if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value.to(running.dtype), momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


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


__all__ = ["SyncedBatchNorm2d", "init_like_dcgan"]
