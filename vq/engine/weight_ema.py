"""The exponential moving average of a module's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightEMA:
    """Averages a module's parameters over the steps; buffers are copied.

    The decay warms up as min(decay, (1 + t) / (10 + t)), so that the first average is not the
    initialisation.

    Args:
        module: Read by `update`, swapped by `applied`.
        decay: In [0, 1).

    Raises:
        ValueError: If the decay is outside [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"weight_ema: expected a decay in [0, 1), got {decay}")
        self.module, self.decay, self.num_updates = module, decay, 0
        self.average = {name: t.detach().clone() for name, t in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the module's present weights; once an optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        parameters = dict(self.module.named_parameters())
        torch._foreach_lerp_(
            [self.average[name] for name in parameters], [p.detach() for p in parameters.values()], 1 - decay
        )
        for name, tensor in self.module.state_dict().items():
            if name not in parameters:
                self.average[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        kept = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
        self.module.load_state_dict(self.average)
        try:
            yield
        finally:
            self.module.load_state_dict(kept)

    def state_dict(self) -> dict[str, int]:
        """The counter; the average itself is saved as a weight file."""
        return {"num_updates": self.num_updates}

    def load(self, average: dict[str, Tensor], state: dict[str, int]) -> None:
        """Continues from a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
        self.num_updates = state["num_updates"]
