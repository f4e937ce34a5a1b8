"""What happens to one batch: which loss moves which parameters, in which order, with which weight."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.data import Batch
from vq.engine.steps.base import TokenizerStep, parallel
from vq.engine.steps.optimization import (
    Mover,
    Share,
    add,
    check_annealing,
    check_weights,
    collecting,
)
from vq.engine.steps.schedules import Schedule
from vq.engine.steps.weight_ema import WeightEMA
from vq.losses import Loss
from vq.ops.numerics.precision import at_least_float32
from vq.quantizers import Annealing
from vq.registry import STEPS
from vq.tokenizers import Tokenizer, TokenizerOutput


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
