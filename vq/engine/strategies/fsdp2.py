"""Fully sharded data parallelism: every rank holds a part of each parameter."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from vq import distributed
from vq.engine.strategies.base import Strategy
from vq.engine.strategies.blocks import blocks_of
from vq.engine.strategies.shards import divided_like, is_divided
from vq.errors import ConfigError
from vq.optimizers import (
    ASGD,
    LARS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
)
from vq.quantizers import Quantizer
from vq.registry import ENGINES

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule

OLDEST = (2, 12)
"""Older versions of torch crash in the backward pass: they do not see the tensors in the dataclasses of models."""

EQUAL_WHEN_DIVIDED = (ASGD, LARS, SGD, Adadelta, Adagrad, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop)
"""The optimizers that move divided parameters as they move whole ones; a test compares them. Adafactor does not."""


def is_supported() -> bool:
    """Whether this version of torch is new enough for `FSDP2`."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= OLDEST


@ENGINES.register_module()
class FSDP2(Strategy):
    """Divides the parameters, gradients and moments of the optimizer among the ranks (`fully_shard` of PyTorch).

    Each block of the networks is gathered for its own forward and backward pass, and what is outside of blocks for
    those of the model. Quantizers are not divided: their codes and counts are the same on every rank, bit for bit.
    Nor are the last layers of decoders, or the discriminator of an `AdversarialStep`.

    Before it is divided, the model is built on each rank, so it must fit there without gradients and moments; so it
    must for a validation.

    Args:
        shards: The number of ranks among which a copy of the model is divided, such as the GPUs of one machine; it
            must divide the number of ranks. Several copies then exist, and their gradients are averaged (hybrid
            sharding). None for all ranks.

    Raises:
        ValueError: If `shards` is below 2.
    """

    is_sharded = True

    def __init__(self, *, shards: int | None = None) -> None:
        if shards is not None and shards < 2:
            raise ValueError(f"FSDP2: expected shards of at least 2, or None for all ranks, got {shards}")
        self.shards = shards

    def wrap(self, model: nn.Module) -> nn.Module:
        """Divides the model in place, which replaces its parameters; returns it. On the meta device it does nothing.

        Raises:
            ConfigError: If there is one rank, nothing is trained, `shards` does not divide the number of ranks, this
                version of torch is too old, the model is compiled or in the memory layout channels_last, or a parameter
                belongs to several blocks.
        """
        parameter = next(model.parameters(), None)
        if parameter is not None and parameter.is_meta:  # a plan, which takes no steps
            return model
        from torch.distributed.fsdp import fully_shard  # its import takes as long as that of torch

        self._check(model)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.copy_(distributed.broadcast(tensor.data))
        options: dict[str, Any] = {
            "mesh": self._mesh(next(model.parameters()).device.type),
            "ignored_params": set(model.parameters()) - set(self.divided(model)),
            "reshard_after_forward": True,
        }
        for block in blocks_of(model):
            fully_shard(block, **options)
        fully_shard(model, **options)
        # The first part that is called would become the root otherwise; in a validation, that is the first block.
        fully_shard.state(model)._lazy_init()  # type: ignore[attr-defined]
        model.register_load_state_dict_pre_hook(_divide)
        # It is about changes in place of what the model returns, which no step makes.
        warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor", UserWarning)
        return model

    def _check(self, model: nn.Module) -> None:
        self.part(distributed.world_size())
        if not is_supported():
            raise ConfigError(
                f"FSDP2: expected torch {OLDEST[0]}.{OLDEST[1]} or newer, got {torch.__version__}; update it, or "
                f"leave train_step.strategy out"
            )
        if not any(p.requires_grad for p in model.parameters()):
            raise ConfigError(
                f"FSDP2: expected a model with parameters that are trained, got {type(model).__name__} without any; "
                f"leave train_step.strategy out"
            )
        if any(part._compiled_call_impl is not None for part in model.modules()):
            raise ConfigError("FSDP2: cannot divide compiled networks; leave out --compile")
        if not all(p.is_contiguous() for p in model.parameters()):
            raise ConfigError(
                "FSDP2: cannot divide weights in the layout channels_last; leave out --channels-last"
            )
        if tied := _tied(model, self.divided(model)):
            raise ConfigError(
                f"FSDP2: expected parameters of one block each, got {', '.join(tied)}, which are one parameter, and "
                f"would not be after the blocks are divided; leave train_step.strategy out"
            )

    def _mesh(self, device: str) -> "DeviceMesh":
        from torch.distributed.device_mesh import init_device_mesh

        size = distributed.world_size()
        if self.shards in (None, size):
            return init_device_mesh(device, (size,), mesh_dim_names=("shard",))
        shape = (size // self.shards, self.shards)
        return init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard"))

    @contextmanager
    def collecting(self, forward: nn.Module) -> Iterator[None]:
        """The context in which gradients stay on their rank, where they need the memory of the whole model."""
        parts = _wrapped([forward])  # none on the meta device
        for part in parts:
            part.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            for part in parts:
                part.set_requires_gradient_sync(True)

    def divided(self, model: nn.Module) -> Sequence[nn.Parameter]:
        """All parameters but those of quantizers, single numbers, and the last layers of decoders.

        An adversarial step compares gradients at a last layer, and needs it whole before the backward pass.
        """
        parts = list(model.modules())
        undivided: set[Any] = {p for part in parts if isinstance(part, Quantizer) for p in part.parameters()}
        undivided |= {getattr(part, "last_layer", None) for part in parts}
        return [p for p in model.parameters() if p.ndim > 0 and p not in undivided]

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuses an optimizer that is not in `EQUAL_WHEN_DIVIDED`, such as Adafactor.

        Raises:
            ConfigError: With the names of those that are.
        """
        if not isinstance(optimizer, EQUAL_WHEN_DIVIDED):
            names = ", ".join(kind.__name__ for kind in EQUAL_WHEN_DIVIDED)
            raise ConfigError(
                f"train_step.optimizer: expected one that updates a part of a matrix as it does the whole one, because "
                f"FSDP2 divides the parameters, got {type(optimizer).__name__}; take one of {names}"
            )

    def part(self, num_ranks: int) -> float:
        """The part of each divided parameter that one of `num_ranks` ranks holds.

        Raises:
            ConfigError: If there is one rank, or `shards` does not divide their number.
        """
        if num_ranks == 1:
            raise ConfigError(
                "FSDP2: expected several ranks to divide the model among, got one process; start the command with "
                "torchrun --nproc_per_node=N, or leave train_step.strategy out"
            )
        if self.shards is not None and num_ranks % self.shards:
            raise ConfigError(
                f"FSDP2: expected shards that divide the number of ranks, got shards={self.shards} and {num_ranks} "
                f"ranks; set shards to a divisor of {num_ranks}, or leave it out"
            )
        return 1 / (self.shards or num_ranks)

    def not_averaged(self, model: nn.Module) -> Sequence[nn.Parameter]:
        """The trained parameters that are not divided."""
        return [p for p in model.parameters() if p.requires_grad and not is_divided(p)]

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """The context in which each rank has all parameters; every rank must enter it."""
        parts = _wrapped(model.modules())
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(True, recurse=False)
                part.reshard()


def _wrapped(modules: Iterable[nn.Module]) -> "list[FSDPModule]":
    from torch.distributed.fsdp import FSDPModule

    return [module for module in modules if isinstance(module, FSDPModule)]


def _tied(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[str]:
    """All names of the first parameter that several blocks share, or a block and what is outside of blocks."""
    blocks = {id(block) for block in blocks_of(model)}
    prefixes = [f"{name}." for name, part in model.named_modules() if id(part) in blocks]
    names: dict[int, list[str]] = {id(p): [] for p in parameters}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in names:
            names[id(parameter)].append(name)
    for same in names.values():
        if len(same) > 1 and len({next(filter(name.startswith, prefixes), "") for name in same}) > 1:
            return same
    return []


def _divide(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Divides whole tensors that are about to be loaded, such as those of a checkpoint."""
    own = module.state_dict()
    for name in [name for name in state if name in own]:
        if state[name].shape == own[name].shape:
            state[name] = divided_like(state[name], own[name])
