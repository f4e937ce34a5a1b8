"""The exponential moving average of a module's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from vq.engine.strategies.shards import divided_like, part_of


class WeightEMA:
    """Averages a module's parameters over the steps; buffers are copied.

    A parameter that several names share (tied weights, a codebook shared by stages) is averaged once, and `average` has
    it under each of its names.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the average soon forgets the initial weights.

    Args:
        module: Read by `update`, swapped by `applied`.
        decay: In [0, 1).

    Raises:
        ValueError: If the decay is outside [0, 1).

    Attributes:
        average: Every name of the module's `state_dict` -> the averaged tensor; names that share a tensor in the
            module share one here.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"weight_ema: expected a decay in [0, 1), got {decay}")
        self.module, self.decay, self.num_updates = module, decay, 0
        self.average = _copied(module)

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the module's present weights; to be called once per optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        # Each parameter once, under the first of its names; frozen ones stay as they are.
        parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        torch._foreach_lerp_(
            [part_of(self.average[name]) for name in parameters],
            [part_of(p.detach()) for p in parameters.values()],
            1 - decay,
        )
        done = {id(p) for p in self.module.parameters()}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if id(tensor) not in done:
                self.average[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The context in which the module has the averaged weights; its own are restored whatever was raised."""
        kept = _copied(self.module)
        try:
            self.module.load_state_dict(self.average)
            yield
        finally:
            self.module.load_state_dict(kept)

    def state_dict(self) -> dict[str, object]:
        """The number of updates; the average itself is saved as a weight file."""
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`; `load_average` restores the average itself.

        Raises:
            KeyError: If it is the state of a step without an average.
        """
        self.num_updates = int(state["num_updates"])

    @torch.no_grad()
    def load_average(self, average: Mapping[str, Shaped[Tensor, "..."]]) -> None:
        """Continues from a saved average.

        A tensor with several names is read under the first: files of version 0.1 have it unaveraged under the others.

        Raises:
            KeyError: If a name is missing.
        """
        loaded: set[int] = set()
        for name, tensor in self.average.items():
            if id(tensor) not in loaded:
                tensor.copy_(divided_like(average[name], tensor))
                loaded.add(id(tensor))


def _copied(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's `state_dict`, in which names that share a tensor share its copy."""
    tensors = module.state_dict(keep_vars=True)
    copies = {id(tensor): tensor.detach().clone() for tensor in tensors.values()}
    return {name: copies[id(tensor)] for name, tensor in tensors.items()}
