"""What happens to one batch: which loss moves which parameters, in which order, with which weight."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.data import Batch
from vq.engine.moving import Mover, Share, add, check_annealing, check_weights, collecting, shares_of
from vq.engine.schedules import Schedule
from vq.engine.weight_ema import WeightEMA
from vq.losses import Loss
from vq.ops.images import to_signed_unit
from vq.ops.precision import at_least_float32, computed_in
from vq.quantizers import Annealing
from vq.registry import STEPS
from vq.tokenizers import Tokenizer, TokenizerOutput

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


@STEPS.register_module()
class ReconstructionStep(TokenizerStep):
    """Reconstructs the images and moves the tokenizer down the weighted sum of its losses.

    Args:
        tokenizer: Moved.
        losses: Name -> loss of (reconstruction, image); unweighted.
        weights: Name -> weight, one for each loss and one for `quantizer`, the quantizer's own loss.
        optimizer: Over the tokenizer's parameters.
        schedule: The factor of the learning rates.
        max_gradient_norm: The gradient's 2-norm is clipped to this; None to leave it.
        weight_ema: Decay of the averaged weights, which are validated and loaded by default; None for none.
        accumulate: Micro-batches a step; together they equal one large batch, codebooks included.
        annealing: Attribute of the quantizer -> its value as a function of the step, such as
            `temperature` of a `GumbelQuantizer`.
        autocast: Run the networks in bfloat16. The quantizer and the losses stay in float32.

    Raises:
        ValueError: If a loss has no weight or a weight no loss, or the quantizer has no such attribute.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float],
        optimizer: Optimizer,
        schedule: Schedule,
        max_gradient_norm: float | None = None,
        weight_ema: float | None = None,
        accumulate: int = 1,
        annealing: Mapping[str, Annealing] | None = None,
        autocast: bool = False,
    ) -> None:
        check_weights(weights, [*losses, "quantizer"])
        check_annealing(tokenizer.quantizer, annealing or {})
        self.annealing = dict(annealing or {})
        self.model, self.tokenizer = tokenizer, tokenizer
        self.mover = Mover(optimizer=optimizer, schedule=schedule, max_gradient_norm=max_gradient_norm)
        self.losses, self.weights = nn.ModuleDict(dict(losses)), dict(weights)
        self.accumulate, self.autocast = accumulate, autocast
        self.weight_ema = None if weight_ema is None else WeightEMA(tokenizer, weight_ema)
        self.device = next(tokenizer.parameters()).device
        self.losses.to(self.device)
        self.forward = parallel(tokenizer)

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        self.begin(step)
        sums: dict[str, Tensor] = {}
        for i, (batch, share) in enumerate(zip(batches, self.shares_of(batches), strict=True)):
            with collecting(self.tokenizer, self.forward) if i < len(batches) - 1 else nullcontext():
                add(sums, self._backward(batch, share))
        total = torch.stack([self.weights[name] * sums[f"loss/{name}"] for name in self.weights]).sum()
        moved = self.mover.move()
        if self.weight_ema is not None:
            self.weight_ema.update()
        return {"loss/total": total, **sums, **moved}

    def _backward(self, batch: Batch, share: Share) -> dict[str, Tensor]:
        """Image -> reconstruction -> losses -> gradients, which add to those that are there."""
        image = self.image_of(batch)
        with self.networks_autocast():
            output: TokenizerOutput = self.forward(image)
        reconstruction = at_least_float32(output.reconstruction)
        terms = {name: share.local * loss(reconstruction, image) for name, loss in self.losses.items()}
        terms["quantizer"] = share.common * output.quantize.loss
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        torch.autograd.backward(total)
        scalars = {f"loss/{name}": term for name, term in terms.items()}
        scalars |= {
            f"quantizer/{name}": share.common * value for name, value in output.quantize.metrics.items()
        }
        return {name: value.detach() for name, value in scalars.items()}


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
