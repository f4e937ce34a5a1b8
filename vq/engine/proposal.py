"""Training of a generator: it learns to propose the indices of an image, given its class."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq.engine.moving import restore_optimizer
from vq.engine.schedules import Schedule
from vq.engine.steps import State, TrainStep, parallel
from vq.engine.weight_ema import WeightEMA
from vq.generators import Generator
from vq.ops.images import to_signed_unit
from vq.registry import STEPS


@STEPS.register_module()
class ProposalStep(TrainStep):
    """Moves a generator down the cross-entropy of the indices; the tokenizer is frozen.

    A batch holds the indices (from a token store) or the images, which are then tokenized on the spot, with
    the same result and at the encoder's cost.

    Args:
        generator: Moved.
        tokenizer: Turns images into indices; needed for batches of images only.
        optimizer: Over the generator's parameters (`decay_groups`).
        schedule: The factor of the learning rates.
        max_gradient_norm: The gradient's 2-norm is clipped to this; None to leave it.
        weight_ema: Decay of the averaged weights; None for none.
        accumulate: Micro-batches a step.
        autocast: Run the generator in bfloat16; the cross-entropy stays in float32.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        tokenizer: nn.Module | None,
        optimizer: Optimizer,
        schedule: Schedule,
        max_gradient_norm: float | None = 1.0,
        weight_ema: float | None = None,
        accumulate: int = 1,
        autocast: bool = False,
    ) -> None:
        self.model, self.generator, self.tokenizer = generator, generator, tokenizer
        self.optimizer, self.schedule = optimizer, schedule
        self.max_gradient_norm, self.accumulate, self.autocast = max_gradient_norm, accumulate, autocast
        self.weight_ema = None if weight_ema is None else WeightEMA(generator, weight_ema)
        self.device = next(generator.parameters()).device
        self.forward = parallel(generator)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        factor = self.schedule.factor(step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            is_last = i == len(batches) - 1
            waits = isinstance(self.forward, DistributedDataParallel) and not is_last
            with self.forward.no_sync() if waits else nullcontext():  # type: ignore[operator]
                scalars = self._backward(batch, share=1 / len(batches))
            for name, value in scalars.items():
                sums[name] = sums.get(name, 0) + value / len(batches)
        norm = nn.utils.clip_grad_norm_(self.generator.parameters(), self.max_gradient_norm or float("inf"))
        self.optimizer.step()
        if self.weight_ema is not None:
            self.weight_ema.update()
        rate = torch.tensor(self.base_rates[0] * factor)
        return sums | {"gradient_norm": norm.detach(), "learning_rate": rate}

    def _backward(self, batch: Mapping[str, Any], share: float) -> dict[str, Tensor]:
        indices, label = tokens_of(batch, self.tokenizer, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output = self.forward(indices, label)
        torch.autograd.backward(output.loss * share)
        return {"loss/total": output.loss.detach(), "accuracy": output.accuracy.detach()}

    def state_dict(self) -> State:
        """See `TrainStep`."""
        ema = {} if self.weight_ema is None else self.weight_ema.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "weight_ema": ema}

    def load_state_dict(self, state: State) -> None:
        """See `TrainStep`."""
        restore_optimizer(self.optimizer, state["optimizer"])


@torch.no_grad()
def tokens_of(
    batch: Mapping[str, Any], tokenizer: nn.Module | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The indices and the labels of a batch, from a store or tokenized on the spot.

    Raises:
        ValueError: If the batch holds images and there is no tokenizer.
    """
    label = batch["label"].to(device, non_blocking=True)
    if "indices" in batch:
        return batch["indices"].to(device, torch.int64, non_blocking=True), label
    if tokenizer is None:
        raise ValueError("ProposalStep: the data are images; give a tokenizer, or data from a token store")
    image = to_signed_unit(batch["image"].to(device, non_blocking=True))
    return tokenizer.encode(image), label  # type: ignore[operator]


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """The module's parameters for an optimizer: matrices with its weight decay, vectors (norms, biases) without."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
