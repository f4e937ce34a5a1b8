"""Batch normalization whose batch is that of all ranks together."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq import distributed
from vq.ops.numerics.precision import at_least_float32


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Rescales each channel to mean 0, variance 1 over the batch of all ranks, then scales and shifts it.

    With one process it is `torch.nn.BatchNorm2d`, and its tensors have the same names always. With several it
    gives what one process gives for their batches together, gradients included, on any device (PyTorch's own
    synchronised layer refuses the CPU) and through second derivatives, as gradient penalties need them. Every
    rank must run it equally often.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1.

    Args:
        channels: Channels of the features.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Features to features of the same shape; in training it also moves the running statistics."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        values = at_least_float32(x)
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = _sum_over_ranks(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = values - mean[:, None, None]
        # In two passes: the mean of squares minus the square of the mean would cancel.
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
    """Draws the weights of convolutions from N(0, 0.02) and of batch norms from N(1, 0.02), and zeroes the biases.

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
    """The sum over ranks. What a rank puts in reaches every rank's loss, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return distributed.all_reduce_sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum_over_ranks(gradients[0])


def _sum_over_ranks(x: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(x)  # type: ignore[no-untyped-call]
    return total


__all__ = ["SyncedBatchNorm2d", "init_like_dcgan"]
