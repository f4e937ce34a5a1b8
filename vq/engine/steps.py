"""What happens to one batch: which loss moves which parameters, in which order, with which weight."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.data import Batch
from vq.engine.moving import add_share, check_annealing, check_weights, collecting, restore_optimizer
from vq.engine.schedules import Schedule
from vq.engine.weight_ema import WeightEMA
from vq.losses import Loss
from vq.ops.images import to_signed_unit
from vq.quantizers import Annealing
from vq.registry import STEPS
from vq.tokenizers import Tokenizer, TokenizerOutput

State = dict[str, object]


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
    def state_dict(self) -> State:
        """Everything but the model's weights that the next step depends on."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Continues from `state_dict`."""


@STEPS.register_module()
class ReconstructionStep(TrainStep):
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
        self.optimizer, self.schedule = optimizer, schedule
        self.losses, self.weights = nn.ModuleDict(dict(losses)), dict(weights)
        self.max_gradient_norm, self.accumulate, self.autocast = max_gradient_norm, accumulate, autocast
        self.weight_ema = None if weight_ema is None else WeightEMA(tokenizer, weight_ema)
        self.device = next(tokenizer.parameters()).device
        self.losses.to(self.device)
        self.forward = parallel(tokenizer)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        factor = self.schedule.factor(step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        for name, annealing in self.annealing.items():
            setattr(self.tokenizer.quantizer, name, annealing.at(step))

        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            with collecting(self.tokenizer, self.forward) if i < len(batches) - 1 else nullcontext():
                scalars = self._backward(batch, share=1 / len(batches))
            add_share(sums, scalars, 1 / len(batches))

        norm = nn.utils.clip_grad_norm_(self._moved(), self.max_gradient_norm or float("inf"))
        self.optimizer.step()
        if self.weight_ema is not None:
            self.weight_ema.update()
        rate = torch.tensor(self.base_rates[0] * factor)
        return sums | {"gradient_norm": norm.detach(), "learning_rate": rate}

    def _backward(self, batch: Batch, share: float) -> dict[str, Tensor]:
        """Image -> reconstruction -> losses -> gradients, which add to those that are there."""
        image = to_signed_unit(batch["image"].to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output: TokenizerOutput = self.forward(image)
        reconstruction = output.reconstruction.float()
        terms = {name: loss(reconstruction, image) for name, loss in self.losses.items()}
        terms["quantizer"] = output.quantize.loss
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        torch.autograd.backward(total * share)
        scalars = {"loss/total": total} | {f"loss/{name}": term for name, term in terms.items()}
        scalars |= {f"quantizer/{name}": value for name, value in output.quantize.metrics.items()}
        return {name: value.detach() for name, value in scalars.items()}

    def _moved(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def state_dict(self) -> State:
        """See `TrainStep`."""
        ema = {} if self.weight_ema is None else self.weight_ema.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "weight_ema": ema}

    def load_state_dict(self, state: State) -> None:
        """See `TrainStep`; the averaged weights come from their own file."""
        restore_optimizer(self.optimizer, state["optimizer"])


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
