"""Memory layout and compilation of the trained networks: they change the speed, and numbers only by rounding."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch._functorch.config
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.quantizers import Quantizer
from vq.tokenizers import Tokenizer

SAFE_ON_CPU = (2, 12)
"""Older versions of torch crash in the backward pass of a channels_last group norm on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Changes the memory layout of networks and compiles them, in place; their `state_dict` keeps its names.

    Attributes:
        is_channels_last: Store the weights of convolutions, and the features, with the channels innermost.
        is_compiled: Use `torch.compile` for the networks. Quantizers are not compiled, so that what they draw and
            count does not depend on it.
    """

    is_channels_last: bool = False
    is_compiled: bool = False

    def apply(self, module: nn.Module, networks: Iterable[nn.Module]) -> None:
        """Tunes a module, before its optimizer is made and before it is wrapped for several ranks.

        Args:
            module: Its weights get the memory layout.
            networks: Its parts that are called and can be compiled.

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
        """The options that are on, in words; empty if none is."""
        return ", ".join(["channels_last"] * self.is_channels_last + ["compiled networks"] * self.is_compiled)


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that are compiled: the parts of a tokenizer but its quantizers; else the whole model."""
    if not isinstance(model, Tokenizer):
        return [model]
    parts = [part for part in model.children() if not isinstance(part, Quantizer)]
    return [
        part for part in parts if any(True for _ in part.children())
    ]  # compiling a single layer gains nothing


def uncompiled(network: nn.Module) -> AbstractContextManager[object]:
    """The context in which a compiled network runs eagerly: compiled graphs have no second derivatives."""
    if network._compiled_call_impl is None:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _leave_last_layer(network: nn.Module) -> None:
    """Keeps the layer that owns `last_layer` out of the graph.

    The adaptive weight needs the gradient at this layer only; through a compiled graph it would cost the whole
    backward pass.
    """
    last = getattr(network, "last_layer", None)
    if isinstance(last, Tensor):
        for layer in network.modules():
            if any(parameter is last for parameter in layer.parameters(recurse=False)):
                # A method is replaced on purpose, and torch does not annotate `disable`.
                layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign, no-untyped-call]
