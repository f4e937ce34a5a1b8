"""Trains a generator to predict the indices of an image, given its class."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vq import distributed
from vq.engine.steps.base import TrainStep
from vq.engine.steps.optimization import Optimization, OptimizationArguments
from vq.engine.strategies.shards import part_of
from vq.generators import Generator
from vq.ops.images import encodable
from vq.registry import STEPS
from vq.tokenizers import Tokenizer


@STEPS.register_module()
class ProposalStep(TrainStep):
    """Lowers the cross-entropy of a generator's predictions of the indices; the tokenizer is frozen.

    A batch holds the indices (from a token store), or the images, which are then tokenized in the step: the result is
    the same, and the encoder's time is added.

    The loss of a step is the mean over all indices that its micro-batches score on all ranks, however many each
    scores (a `MaskedGenerator` scores the masked ones): gradients are those of sums, and are divided by the number of
    all scored indices before the optimizer's step.

    Args:
        generator: Trained.
        tokenizer: Turns images into indices; needed for batches of images only.
        **optimization: `optimizer`, `schedule`, `max_gradient_norm`, `weight_ema`, `accumulate`, `autocast`,
            `strategy`, `checkpoint_activations`; see `OptimizationArguments`. The optimizer is called with
            `decay_groups`, and `max_gradient_norm` is 1 by default.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        tokenizer: Tokenizer | None,
        **optimization: Unpack[OptimizationArguments],
    ) -> None:
        self.generator, self.tokenizer = generator, tokenizer
        optimization.setdefault("max_gradient_norm", 1.0)
        self.optimization = Optimization(generator, decay_groups(generator), **optimization)

    def __call__(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, Float[Tensor, ""]]:
        """Takes one optimizer step of the generator."""
        self.optimization.prepare(step)
        # Until the number of all scored indices is known, gradients are those of sums, in units of a whole picture.
        unit = self.generator.num_positions * self.generator.num_indices
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for batch, context in zip(batches, self.optimization.contexts(len(batches)), strict=True):
            with context:
                sums = sums + self._backward(batch, unit)
        nats, right, scored = sums
        per_rank = distributed.all_reduce_sum(scored).clamp_min(1) / distributed.world_size()
        gradients = [part_of(p.grad) for p in self.optimization.optimizer.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, (unit / per_rank).to(gradients[0].dtype))
        return {"loss/total": nats / per_rank, "accuracy": right / per_rank, **self.optimization.step()}

    def _backward(self, batch: Mapping[str, Any], unit: int) -> Tensor:
        """Adds the gradient of the summed loss over `unit`; returns the sums of nats, right guesses and scored."""
        indices, label = tokens_of(batch, self.tokenizer, self.device)
        with self.optimization.networks_autocast():
            output = self.optimization.forward(indices, label)
        scored = output.num_scored.to(output.loss.dtype)
        self.optimization.backward(output.loss * (scored / unit))
        sums: Tensor = (
            torch.stack([output.loss.detach(), output.accuracy, scored.new_ones(())]).double() * scored
        )
        return sums


@torch.no_grad()
def tokens_of(
    batch: Mapping[str, Any], tokenizer: Tokenizer | None, device: torch.device
) -> tuple[Shaped[Tensor, "batch *index"], Shaped[Tensor, "batch"]]:
    """The indices and the labels of a batch, from a store or tokenized here.

    Raises:
        ValueError: If the batch holds images and there is no tokenizer.
    """
    label = batch["label"].to(device, non_blocking=True)
    if "indices" in batch:
        return batch["indices"].to(device, torch.int64, non_blocking=True), label
    if tokenizer is None:
        raise ValueError("ProposalStep: the data are images; give a tokenizer, or data from a token store")
    return tokenizer.encode(encodable(batch["image"].to(device, non_blocking=True))), label


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """The module's parameters for an optimizer: matrices with its weight decay, vectors (norms, biases) without."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
