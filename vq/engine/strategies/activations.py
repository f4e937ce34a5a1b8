"""Activation checkpointing: blocks that compute their activations twice, and keep them for a shorter time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vq.engine.strategies.blocks import blocks_of
from vq.errors import ConfigError


def checkpoint_blocks(model: nn.Module) -> None:
    """Lets the blocks of a model keep only their input, and compute the rest again in the backward pass.

    Gradients are the same, dropout included. Quantizers are in no block and run once, so codebooks learn once. To be
    called before the model is wrapped for several ranks.

    Raises:
        ConfigError: If the model has no blocks, is compiled, or has a block with a batch norm, which would count the
            same batch twice.
    """
    blocks = blocks_of(model)
    place, name = "train_step.checkpoint_activations", type(model).__name__
    if not blocks:
        raise ConfigError(
            f"{place}: expected a model with blocks of several layers, got {name} without any; leave it out"
        )
    if any(part._compiled_call_impl is not None for part in model.modules()):
        raise ConfigError(f"{place}: expected networks that are not compiled; leave out --compile, or it")
    if any(isinstance(part, _BatchNorm) for block in blocks for part in block.modules()):
        raise ConfigError(
            f"{place}: expected blocks without batch norm, which would count a batch twice, got {name}; leave it out"
        )
    for block in blocks:
        # A method is replaced on purpose: a wrapping module would change the names of the weights.
        block.forward = _checkpointed(block.forward)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    return run
