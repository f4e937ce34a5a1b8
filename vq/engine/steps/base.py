"""The interface of a training step, and what steps that train a tokenizer share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.data import Batch
from vq.engine.steps.optimization import (
    Mover,
    Share,
    shares_of,
)
from vq.engine.steps.weight_ema import WeightEMA
from vq.ops.images import to_signed_unit
from vq.ops.numerics.precision import at_least_float32, computed_in
from vq.quantizers import Annealing
from vq.tokenizers import Tokenizer

State = Mapping[str, object]


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint continues: a part of a training step."""

    def state_dict(self) -> State:
        """All that the next step depends on, as plain data and tensors."""

    def load_state_dict(self, state: Any) -> object:
        """Continues from `state_dict`."""


class TrainStep(ABC):
    """One optimizer step; owns the modules and optimizers that it moves.

    Attributes:
        model: What is trained, saved and validated: a tokenizer or a generator.
        weight_ema: The average of its weights, if one is kept.
        accumulate: Micro-batches a step.
        device: Where the model is.
    """

    model: nn.Module
    weight_ema: WeightEMA | None
    accumulate: int
    device: torch.device

    @abstractmethod
    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """Takes one optimizer step over `accumulate` micro-batches.

        Returns:
            Detached scalars, named like `loss/l1`.
        """

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """Everything but the model's weights that the next step depends on.

        A step around another one has that step among its parts, and so saves and restores all that is inside.
        """

    def state_dict(self) -> State:
        """The states of all parts; the averaged weights, like the weights, are saved as a file of their own."""
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: State) -> None:
        """Continues from `state_dict`; parts that the state has and this step has not are left out.

        Raises:
            KeyError: If the state lacks a part.
            ValueError: If a part's state does not fit.
        """
        for name, part in self.parts().items():
            part.load_state_dict(state[name])


class TokenizerStep(TrainStep):
    """A step that moves a tokenizer by batches of images.

    Attributes:
        tokenizer: The model.
        mover: Moves its parameters.
        annealing: Attribute of the quantizer -> its value as a function of the step.
        autocast: Whether the networks run in bfloat16.
    """

    tokenizer: Tokenizer
    mover: Mover
    annealing: Mapping[str, Annealing]
    autocast: bool

    @property
    def optimizer(self) -> Optimizer:
        """What moves the tokenizer."""
        return self.mover.optimizer

    def begin(self, step: int) -> None:
        """Sets what changes with the step: rates, and the quantizer's numbers."""
        self.mover.prepare(step)
        for name, annealing in self.annealing.items():
            setattr(self.tokenizer.quantizer, name, annealing.at(step))

    def image_of(self, batch: Batch) -> Tensor:
        """The batch's images in [-1, 1], on the model's device; in float64 for a model in float64, else in float32."""
        image = to_signed_unit(batch["image"].to(self.device, non_blocking=True))
        return image.to(computed_in(next(self.tokenizer.parameters()).dtype))

    def shares_of(self, batches: Sequence[Batch]) -> list[Share]:
        """What each micro-batch's means are multiplied with."""
        return shares_of([len(batch["image"]) for batch in batches], next(self.tokenizer.parameters()))

    def networks_autocast(self) -> torch.autocast:
        """Inside, networks run in bfloat16 if the step says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    @torch.no_grad()
    def latent(self, batch: Batch) -> Tensor:
        """The vectors of the batch that the quantizer sees in this step, without a gradient; in its dtype."""
        with self.networks_autocast():
            latent = self.tokenizer.latent(self.image_of(batch))
        return at_least_float32(latent)

    def parts(self) -> Mapping[str, Stateful]:
        """See `TrainStep`."""
        average = {} if self.weight_ema is None else {"weight_ema": self.weight_ema}
        return {"optimizer": self.mover, **average}


def parallel(module: nn.Module) -> nn.Module:
    """The module, or with several ranks a wrapper that averages its gradients over them.

    Buffers are not broadcast: codebooks update themselves equally on every rank.
    """
    if distributed.world_size() == 1:
        return module
    device = next(module.parameters()).device
    return DistributedDataParallel(
        module, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
    )
