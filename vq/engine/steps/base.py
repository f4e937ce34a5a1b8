"""The interface of a training step, and what steps that train a tokenizer share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Unpack, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.data import Batch
from vq.engine.steps.checks import check_annealing
from vq.engine.steps.micro_batches import Share, shares_of
from vq.engine.steps.optimization import Optimization, OptimizationArguments
from vq.engine.steps.parameter_groups import Decay, parameter_groups
from vq.engine.steps.schedules import Weights
from vq.engine.steps.sources import Sources
from vq.engine.steps.weight_ema import WeightEMA
from vq.losses import Loss
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

    def updated_parameters(self) -> list[nn.Parameter]:
        """All parameters that the step updates."""
        return self.optimization.optimizer.parameters

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


class TokenizerArguments(OptimizationArguments, total=False):
    """Keyword arguments of every step that trains a tokenizer.

    Attributes:
        rates: The name of a part of the tokenizer -> the factor of its learning rate, such as `{"encoder": 0.1}`; parts
            that are not named have the factor 1.
        decay: What the optimizer's weight decay applies to: `"all"`, the default, or `"matrices"`, which leaves out
            norms, biases, learned tokens, positions and codes.
    """

    rates: Mapping[str, float] | None
    decay: Decay


class TokenizerStep(TrainStep):
    """A step that trains a tokenizer on batches of images, and the parameters of its losses with it.

    Frozen parts of the tokenizer (`Tokenizer.freeze`) are not among the parameters of the optimizer.

    Args:
        tokenizer: The tokenizer that is trained.
        losses: Name -> loss; unweighted.
        weights: The weights of the losses, of the quantizer's own loss, and of what a subclass adds.
        annealing: Attribute of the quantizer -> its value as a function of the step.
        **optimization: The keyword arguments in `TokenizerArguments`.

    Raises:
        ValueError: If the quantizer has no such attribute, a loss compares what the tokenizer does not have, a part in
            `rates` is not trained, or there is an optimizer and nothing for it to update.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        losses: Mapping[str, Loss],
        weights: Weights,
        annealing: Mapping[str, Annealing] | None,
        **optimization: Unpack[TokenizerArguments],
    ) -> None:
        self.annealing = dict(annealing or {})
        check_annealing(tokenizer.quantizer, self.annealing)
        self.tokenizer, self.losses, self.weights = tokenizer, dict(losses), weights
        self._loss_modules = nn.ModuleDict(self.losses).to(tokenizer.device)
        self.sources = Sources(tokenizer, self.losses.values())
        beside = [
            (f"losses.{name}", p) for name, p in self._loss_modules.named_parameters() if p.requires_grad
        ]
        trained = [(name, p) for name, p in tokenizer.named_parameters() if p.requires_grad]
        groups = parameter_groups(
            [*trained, *beside],
            rates=optimization.pop("rates", None) or {},
            decay=optimization.pop("decay", "all"),
        )
        # What is left are the arguments of OptimizationArguments, which a type checker cannot know.
        others = cast("OptimizationArguments", optimization)
        self.optimization = Optimization(tokenizer, groups, beside=[p for _, p in beside], **others)

    def prepare(self, step: int) -> None:
        """Begins a step: sets learning rates, weights and annealed attributes, and drops old gradients."""
        self.optimization.prepare(step)
        self.weights.prepare(step)
        for name, annealing in self.annealing.items():
            setattr(self.tokenizer.quantizer, name, annealing.at(step))

    def micro_batches(
        self, batches: Sequence[Batch]
    ) -> Iterator[tuple[Batch, Share, AbstractContextManager[None]]]:
        """Each micro-batch with the factors of its means, and the context of its forward and backward pass."""
        like = torch.empty((), dtype=self.tokenizer.dtype, device=self.device)
        shares = shares_of([_size(batch) for batch in batches], like)
        return zip(batches, shares, self.optimization.contexts(len(batches)), strict=True)

    def quantizer_share(self, share: Share) -> float | Float[Tensor, ""]:
        """The factor of the quantizer's loss and scalars, which are those of this rank alone if it is frozen."""
        return share.common if self.tokenizer.quantizer.training else share.local

    def image_of(self, batch: Mapping[str, Any]) -> Float[Tensor, "batch channels height width"]:
        """The batch's images in [-1, 1], on the model's device; in float64 for a model in float64, else in float32."""
        image = to_signed_unit(batch["image"].to(self.device, non_blocking=True))
        return image.to(computed_in(self.tokenizer.dtype))

    def stored_latent(self, batch: Mapping[str, Any]) -> Float[Tensor, "batch rows columns channels"]:
        """The batch's stored features, which are the tokenizer's latent; on its device, as `image_of` in its dtype."""
        features: Tensor = batch["features"].to(self.device, non_blocking=True)
        return features.to(computed_in(self.tokenizer.dtype))

    def value_of(
        self,
        loss: Loss,
        compared: Float[Tensor, "batch channels *position"],
        image: Float[Tensor, "batch _channels h w"],
    ) -> Float[Tensor, ""]:
        """The value of a loss; with `autocast`, the networks of a loss that `uses_autocast` run in bfloat16."""
        with self.optimization.networks_autocast() if loss.uses_autocast else nullcontext():
            value: Tensor = loss(at_least_float32(compared), image)
        return value

    def parts(self) -> Mapping[str, Stateful]:
        """The optimization, and the losses if they have parameters."""
        losses = {"losses": self._loss_modules} if self.optimization.beside else {}
        return {**super().parts(), **losses}

    @torch.no_grad()
    def latent(self, batch: Batch) -> Float[Tensor, "batch *position codebook_dim"]:
        """The vectors of the batch that the quantizer sees in this step, without a gradient; in its dtype."""
        with self.optimization.networks_autocast():
            latent = self.tokenizer.latent(self.image_of(batch))
        return at_least_float32(latent)


def _size(batch: Mapping[str, Any]) -> int:
    """The number of images in a batch of images, or of stored features."""
    return len(batch["features"] if "features" in batch else batch["image"])
