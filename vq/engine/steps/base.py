"""The interface of a training step, and what steps that train a tokenizer share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Unpack, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.data import Batch
from vq.engine.steps.checks import check_annealing
from vq.engine.steps.micro_batches import Share, shares_of
from vq.engine.steps.optimization import Optimization, OptimizationArguments
from vq.engine.steps.weight_ema import WeightEMA
from vq.ops.images import to_signed_unit
from vq.ops.numerics.precision import at_least_float32, computed_in
from vq.quantizers import Annealing
from vq.tokenizers import Tokenizer

State = Mapping[str, object]


@runtime_checkable
class Stateful(Protocol):
    """A part of a training step whose state a checkpoint holds."""

    def state_dict(self) -> State:
        """All that the next step depends on, as plain data and tensors."""

    def load_state_dict(self, state: Any) -> object:
        """Continues from `state_dict`."""


class TrainStep(ABC):
    """Takes one optimizer step on a model.

    Attributes:
        optimization: The model that is trained, saved and validated (a tokenizer or a generator), and what updates it.
    """

    optimization: Optimization

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        return self.optimization.model

    @property
    def weight_ema(self) -> WeightEMA | None:
        """The average of the model's weights, if one is kept."""
        return self.optimization.weight_ema

    @property
    def accumulate(self) -> int:
        """Micro-batches per step."""
        return self.optimization.accumulate

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.optimization.device

    @abstractmethod
    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Float[Tensor, ""]]:
        """Takes one optimizer step over `accumulate` micro-batches.

        Returns:
            Detached scalars, named like `loss/l1`.
        """

    def parts(self) -> Mapping[str, Stateful]:
        """Everything but the model's weights that the next step depends on.

        A step around another step has that step among its parts, and so saves and restores all that is inside.
        """
        return self.optimization.parts()

    def state_dict(self) -> State:
        """The states of all parts; the averaged weights, like the weights, are saved as a file of their own."""
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: State) -> None:
        """Continues from `state_dict`; parts that only the state has are ignored.

        Raises:
            KeyError: If the state lacks a part.
            ValueError: If a part's state does not fit.
        """
        for name, part in self.parts().items():
            part.load_state_dict(state[name])


class TokenizerStep(TrainStep):
    """A step that trains a tokenizer on batches of images.

    Args:
        tokenizer: The tokenizer that is trained.
        annealing: Attribute of the quantizer -> its value as a function of the step.
        **optimization: The keyword arguments in `OptimizationArguments`.

    Raises:
        ValueError: If the quantizer has no such attribute.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        annealing: Mapping[str, Annealing] | None,
        **optimization: Unpack[OptimizationArguments],
    ) -> None:
        self.annealing = dict(annealing or {})
        check_annealing(tokenizer.quantizer, self.annealing)
        self.tokenizer = tokenizer
        self.optimization = Optimization(tokenizer, list(tokenizer.parameters()), **optimization)

    def prepare(self, step: int) -> None:
        """Begins a step: sets the learning rates and the annealed attributes, and drops old gradients."""
        self.optimization.prepare(step)
        for name, annealing in self.annealing.items():
            setattr(self.tokenizer.quantizer, name, annealing.at(step))

    def micro_batches(
        self, batches: Sequence[Batch]
    ) -> Iterator[tuple[Batch, Share, AbstractContextManager[None]]]:
        """Each micro-batch with the factors of its means, and the context of its forward and backward pass."""
        shares = shares_of([len(batch["image"]) for batch in batches], next(self.tokenizer.parameters()))
        return zip(batches, shares, self.optimization.contexts(len(batches)), strict=True)

    def image_of(self, batch: Batch) -> Float[Tensor, "batch 3 height width"]:
        """The batch's images in [-1, 1], on the model's device; in float64 for a model in float64, else in float32."""
        image = to_signed_unit(batch["image"].to(self.device, non_blocking=True))
        return image.to(computed_in(next(self.tokenizer.parameters()).dtype))

    @torch.no_grad()
    def latent(self, batch: Batch) -> Float[Tensor, "batch *position codebook_dim"]:
        """The vectors of the batch that the quantizer sees in this step, without a gradient; in its dtype."""
        with self.optimization.networks_autocast():
            latent = self.tokenizer.latent(self.image_of(batch))
        return at_least_float32(latent)
