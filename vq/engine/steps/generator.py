"""Training of a generator: it learns to propose the indices of an image, given its class."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vq import distributed
from vq.engine.steps.base import Stateful, TrainStep, parallel
from vq.engine.steps.optimization import Mover
from vq.engine.steps.schedules import Schedule
from vq.engine.steps.weight_ema import WeightEMA
from vq.generators import Generator
from vq.registry import STEPS


@STEPS.register_module()
class ProposalStep(TrainStep):
    """Moves a generator down the cross-entropy of the indices; the tokenizer is frozen.

    A batch holds the indices (from a token store) or the images, which are then tokenized on the spot, with
    the same result and at the encoder's cost.

    The loss of a step is the mean over all indices that its micro-batches score on all ranks, however many each
    scores (a `MaskedGenerator` scores the masked ones): gradients are those of sums, and are divided by the number of
    all scored indices before the move.

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
        self.mover = Mover(optimizer=optimizer, schedule=schedule, max_gradient_norm=max_gradient_norm)
        self.accumulate, self.autocast = accumulate, autocast
        self.weight_ema = None if weight_ema is None else WeightEMA(generator, weight_ema)
        self.device = next(generator.parameters()).device
        self.forward = parallel(generator)

    def __call__(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        self.mover.prepare(step)
        # Until the number of all scored indices is known, gradients are those of sums, in units of a whole picture.
        unit = self.generator.num_positions * self.generator.num_indices
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for i, batch in enumerate(batches):
            is_last = i == len(batches) - 1
            waits = isinstance(self.forward, DistributedDataParallel) and not is_last
            with self.forward.no_sync() if waits else nullcontext():  # type: ignore[operator]
                sums = sums + self._backward(batch, unit)
        nats, right, scored = sums
        per_rank = distributed.all_reduce_sum(scored).clamp_min(1) / distributed.world_size()
        gradients = [p.grad for p in self.mover.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, (unit / per_rank).to(gradients[0].dtype))
        moved = self.mover.move()
        if self.weight_ema is not None:
            self.weight_ema.update()
        return {"loss/total": nats / per_rank, "accuracy": right / per_rank, **moved}

    def _backward(self, batch: Mapping[str, Any], unit: int) -> Tensor:
        """Adds the gradient of the summed loss over `unit`; returns the sums of nats, right guesses and scored."""
        indices, label = tokens_of(batch, self.tokenizer, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output = self.forward(indices, label)
        scored = output.num_scored.to(output.loss.dtype)
        torch.autograd.backward(output.loss * (scored / unit))
        sums: Tensor = (
            torch.stack([output.loss.detach(), output.accuracy, scored.new_ones(())]).double() * scored
        )
        return sums

    def parts(self) -> Mapping[str, Stateful]:
        """See `TrainStep`."""
        average = {} if self.weight_ema is None else {"weight_ema": self.weight_ema}
        return {"optimizer": self.mover, **average}


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
    image = batch["image"].to(device, non_blocking=True)  # uint8: `encode` maps it to [-1, 1]
    return tokenizer.encode(image), label  # type: ignore[operator]


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """The module's parameters for an optimizer: matrices with its weight decay, vectors (norms, biases) without."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
