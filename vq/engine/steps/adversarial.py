"""Adversarial training: the tokenizer lowers its losses and fools a discriminator, which learns meanwhile."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.data import Batch
from vq.engine.steps.base import Stateful, TokenizerStep, parallel
from vq.engine.steps.discriminator_side import Adversary, Verdict
from vq.engine.steps.optimization import (
    Mover,
    Share,
    add,
    check_annealing,
    check_weights,
    collecting,
    mean_over_ranks,
)
from vq.engine.steps.schedules import Schedule
from vq.engine.steps.weight_ema import WeightEMA
from vq.losses import Loss
from vq.ops.balance import adaptive_weight
from vq.ops.numerics.precision import at_least_float32
from vq.quantizers import Annealing
from vq.registry import STEPS
from vq.tokenizers import Tokenizer, TokenizerOutput


@STEPS.register_module()
class AdversarialStep(TokenizerStep):
    r"""Moves the tokenizer down its losses and towards what a discriminator takes for real, and the discriminator.

    The tokenizer runs forward once. The losses and the discriminator see its reconstruction cut off from it, and
    say what gradient they want there; one backward pass takes the weighted sum through the tokenizer. Both
    sides see the other as it was before the step.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1.
    Differs from the source: one forward of the tokenizer a step and not two; the adaptive weight is that of the
        whole batch, over all micro-batches and ranks.

    Args:
        tokenizer: Moved.
        losses: Name -> loss of (reconstruction, image); unweighted, at least one.
        weights: Name -> weight, one for each loss, one for `quantizer`, one for `adversarial`. With the
            adaptive weight the last one is its gain.
        adversary: The discriminator and what moves it.
        optimizer: Over the tokenizer's parameters.
        schedule: The factor of the tokenizer's learning rates.
        is_adaptive: Weigh the adversarial loss so that its gradient at the decoder's last layer is that of
            the losses times the gain (`adaptive_weight`).
        max_gradient_norm: The tokenizer's gradient is clipped to this 2-norm; None to leave it.
        weight_ema: Decay of the averaged weights; None for none.
        accumulate: Micro-batches a step; together they equal one large batch, codebooks included, but for the
            statistics of a discriminator with batch norm, which are those of a micro-batch.
        annealing: Attribute of the quantizer -> its value as a function of the step.
        autocast: Run the networks in bfloat16. The quantizer and the losses stay in float32.

    Raises:
        ValueError: If a loss has no weight or a weight no loss, there is no loss, the decoder does not say which
            is its last layer, or the quantizer has no such attribute.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float],
        adversary: Adversary,
        optimizer: Optimizer,
        schedule: Schedule,
        is_adaptive: bool = True,
        max_gradient_norm: float | None = None,
        weight_ema: float | None = None,
        accumulate: int = 1,
        annealing: Mapping[str, Annealing] | None = None,
        autocast: bool = False,
    ) -> None:
        check_weights(weights, [*losses, "quantizer", "adversarial"])
        if not losses:
            raise ValueError("losses: expected at least one; the discriminator alone knows no image")
        if is_adaptive and not isinstance(getattr(tokenizer.decoder, "last_layer", None), Tensor):
            raise ValueError(
                f"is_adaptive: {type(tokenizer.decoder).__name__} has no last_layer at which gradients could be "
                "compared; set is_adaptive=False"
            )
        self.annealing = dict(annealing or {})
        check_annealing(tokenizer.quantizer, self.annealing)
        self.model, self.tokenizer, self.adversary = tokenizer, tokenizer, adversary
        self.losses, self.weights = nn.ModuleDict(dict(losses)), dict(weights)
        self.mover = Mover(optimizer=optimizer, schedule=schedule, max_gradient_norm=max_gradient_norm)
        self.is_adaptive, self.accumulate, self.autocast = is_adaptive, accumulate, autocast
        self.weight_ema = None if weight_ema is None else WeightEMA(tokenizer, weight_ema)
        self.device = next(tokenizer.parameters()).device
        self.losses.to(self.device)
        self.forward = parallel(tokenizer)

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        self.begin(step)
        if has_begun := step >= self.adversary.start_step:
            self.adversary.prepare(step)
        zero = torch.zeros((), device=self.device)
        pull = _Pull(self, is_split=has_begun and self.is_adaptive and len(batches) > 1)
        sums: dict[str, Tensor] = {"adversarial_weight": zero, "loss/adversarial": zero}
        for i, (batch, share) in enumerate(zip(batches, self.shares_of(batches), strict=True)):
            is_last = i == len(batches) - 1
            with nullcontext() if is_last else collecting(self.tokenizer, self.forward):
                add(sums, self._backward(batch, pull, share, has_begun=has_begun))
        if pull.is_split:
            sums["adversarial_weight"] = pull.add_adversarial()

        terms = [self.weights[name] * sums[f"loss/{name}"] for name in (*self.losses, "quantizer")]
        total = torch.stack([*terms, sums["adversarial_weight"] * sums["loss/adversarial"]]).sum()
        scalars = {"loss/total": total, **sums, **self.mover.move()}
        if has_begun:
            scalars |= self.adversary.move(sums)
        if self.weight_ema is not None:
            self.weight_ema.update()
        return scalars

    def _backward(self, batch: Batch, pull: "_Pull", share: Share, *, has_begun: bool) -> dict[str, Tensor]:
        """Image -> reconstruction -> what gradient the losses and the discriminator want there -> gradients."""
        image = self.image_of(batch)
        with self.networks_autocast():
            output: TokenizerOutput = self.forward(image)
        reconstruction = at_least_float32(output.reconstruction)
        seen = reconstruction.detach().requires_grad_()  # nothing behind this point is in reach
        terms = {name: loss(seen, image) for name, loss in self.losses.items()}
        weighted = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        (gradient,) = torch.autograd.grad(weighted, seen)
        own = {f"loss/{name}": term for name, term in terms.items()}
        common = {"loss/quantizer": output.quantize.loss}
        common |= {f"quantizer/{name}": value for name, value in output.quantize.metrics.items()}
        if has_begun:
            verdict = self.adversary.judge(seen, image, share=share.local, autocast=self.autocast)
            own |= {"loss/adversarial": verdict.loss, **verdict.scalars}
            gradient, common["adversarial_weight"] = pull.combine(
                reconstruction, gradient, verdict, share.local
            )
        ends, gradients = [reconstruction], [gradient * share.local]
        if output.quantize.loss.requires_grad:  # FSQ has no loss
            ends.append(output.quantize.loss)
            gradients.append(
                torch.ones_like(output.quantize.loss) * (self.weights["quantizer"] * share.common)
            )
        torch.autograd.backward(ends, gradients)
        scalars = {name: share.local * value for name, value in own.items()}
        scalars |= {name: share.common * value for name, value in common.items()}
        return {name: value.detach() for name, value in scalars.items()}

    def parts(self) -> Mapping[str, Stateful]:
        """See `TrainStep`."""
        return {**super().parts(), "adversary": self.adversary}


class _Pull:
    """Brings the adversarial gradient into one step, at a weight that may depend on the whole batch.

    With one micro-batch the weight is known before the backward pass, which then serves both gradients. With
    several it is known only after the last, so the adversarial gradient is taken through the tokenizer by itself
    and kept aside (a second backward pass, and room for one more gradient).
    """

    def __init__(self, step: AdversarialStep, *, is_split: bool) -> None:
        self.step, self.is_split = step, is_split
        self.gain = step.weights["adversarial"]
        self.aside: list[Tensor] = []
        self.at_last: list[Tensor] = []

    def combine(
        self, reconstruction: Tensor, wanted: Tensor, verdict: Verdict, share: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient to send into the tokenizer, and the adversarial loss's weight as far as it is known."""
        if not self.step.is_adaptive:
            return wanted + self.gain * verdict.gradient, torch.tensor(self.gain, device=wanted.device)
        at_last = [self._at_last_layer(reconstruction, g * share) for g in (wanted, verdict.gradient)]
        if not self.is_split:
            weight = self._weight(at_last)
            return wanted + weight * verdict.gradient, weight
        parameters = self.step.mover.parameters
        found = torch.autograd.grad(
            reconstruction, parameters, verdict.gradient * share, retain_graph=True, allow_unused=True
        )
        new = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        self.aside = [a + b for a, b in zip(self.aside, new, strict=True)] if self.aside else new
        self.at_last = (
            [a + b for a, b in zip(self.at_last, at_last, strict=True)] if self.at_last else at_last
        )
        return wanted, torch.zeros((), device=wanted.device)

    def add_adversarial(self) -> Tensor:
        """After the last micro-batch: adds what was kept aside to the gradients; returns its weight."""
        weight = self._weight(self.at_last)
        parameters = self.step.mover.parameters
        for parameter, gradient in zip(parameters, mean_over_ranks(self.aside), strict=True):
            if parameter.grad is None:
                parameter.grad = weight * gradient
            else:
                parameter.grad.add_(weight * gradient)
        return weight

    def _at_last_layer(self, reconstruction: Tensor, gradient: Tensor) -> Tensor:
        last: Tensor = self.step.tokenizer.decoder.last_layer  # type: ignore[assignment]
        (found,) = torch.autograd.grad(reconstruction, last, gradient, retain_graph=True)
        return found

    def _weight(self, at_last: Sequence[Tensor]) -> Tensor:
        wanted, adversarial = mean_over_ranks(at_last)
        return adaptive_weight(wanted, adversarial, gain=self.gain)
