"""How the trained networks lie in memory and run: what changes the speed, and numbers by rounding alone."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch._functorch.config
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.generators import Generator
from vq.quantizers import Quantizer

# Before it, torch's group norm crashes the process in a channels_last backward on the CPU.
SAFE_ON_CPU = (2, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Lays the weights of networks out and compiles them, in place; their `state_dict` keeps its names.

    Attributes:
        is_channels_last: Weights of convolutions lie with the channels innermost, and so do the features.
        is_compiled: `torch.compile` for the networks. Quantizers stay as they are: what they draw and count does
            not depend on it.
    """

    is_channels_last: bool = False
    is_compiled: bool = False

    def apply(self, module: nn.Module, networks: Iterable[nn.Module]) -> None:
        """Prepares a module, before its optimizer is made and before it is wrapped.

        Args:
            module: Laid out.
            networks: The parts of it that are called and can be compiled.

        Raises:
            ConfigError: If this version of torch cannot do it on the module's device.
        """
        if self.is_channels_last:
            version = tuple(int(part) for part in torch.__version__.split(".")[:2])
            if version < SAFE_ON_CPU and next(module.parameters()).device.type == "cpu":
                raise ConfigError(
                    f"--channels-last: torch {torch.__version__} crashes with it on a CPU; expected torch 2.12 or "
                    "newer, or --device cuda; leave it out"
                )
            module.to(memory_format=torch.channels_last)
        if self.is_compiled:
            # Adversarial steps pass backward through a graph more than once; compiled ones must keep its buffers.
            torch._functorch.config.donated_buffer = False
            for network in networks:
                _leave_last_layer(network)
                network.compile()

    def __str__(self) -> str:
        """What is on, in words; empty if nothing is."""
        return ", ".join(["channels_last"] * self.is_channels_last + ["compiled networks"] * self.is_compiled)


def networks_of(model: nn.Module) -> list[nn.Module]:
    """What is compiled of a model: a generator's training pass (not its sampling); a tokenizer but its quantizers."""
    if isinstance(model, Generator):
        return [model]
    parts = [part for part in model.children() if not isinstance(part, Quantizer)]
    return [part for part in parts if any(True for _ in part.children())]  # a layer alone gains nothing


def uncompiled(network: nn.Module) -> AbstractContextManager[object]:
    """Inside, a compiled network runs as it is written: compiled graphs have no second derivatives."""
    if network._compiled_call_impl is None:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _leave_last_layer(network: nn.Module) -> None:
    """Keeps the layer that owns `last_layer` out of the graph.

    The adaptive weight wants the gradient there and no further; through a compiled graph it would cost
    the whole backward pass.
    """
    last = getattr(network, "last_layer", None)
    if isinstance(last, Tensor):
        for layer in network.modules():
            if any(parameter is last for parameter in layer.parameters(recurse=False)):
                layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign, no-untyped-call]
