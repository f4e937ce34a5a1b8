"""Data parallelism: every rank has a copy of the model."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.engine.strategies.base import Strategy
from vq.registry import ENGINES


@ENGINES.register_module()
class DDP(Strategy):
    """Keeps a copy of the model on every rank (`torch.nn.parallel.DistributedDataParallel`); the default.

    Buffers are not broadcast: codebooks update themselves equally on every rank.
    """

    is_sharded = False

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself, or with several ranks a wrapper that averages its gradients over them."""
        if distributed.world_size() == 1 or not any(p.requires_grad for p in model.parameters()):
            return model
        device = next(model.parameters()).device
        wrapped = DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
        )
        _order_gradients(wrapped)
        return wrapped

    def collecting(self, forward: nn.Module) -> AbstractContextManager[object]:
        """The context in which the ranks exchange no gradients."""
        no_sync: AbstractContextManager[object] = (
            forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()
        )
        return no_sync

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Accepts every optimizer."""

    def whole(self, model: nn.Module) -> AbstractContextManager[object]:
        """Does nothing: the model is whole on every rank."""
        return nullcontext()


def _order_gradients(model: DistributedDataParallel) -> None:
    """Makes DDP choose the order of the gradients in its buckets now, by a backward pass that computes zeros.

    Otherwise it does so after the first step of the process. The place of a gradient in a bucket decides in which order
    more than two ranks are summed, so the first step of a training that is continued would be rounded differently.
    """
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    model.reducer.prepare_for_backward([])
    torch.stack([torch.zeros_like(p).mul(p).sum().float() for p in parameters]).sum().backward()
    for parameter in parameters:
        parameter.grad = None
