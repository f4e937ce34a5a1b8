"""Adversarial training: the tokenizer lowers its losses and fools a discriminator, which learns meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from vq.data import Batch
from vq.engine.steps.base import Stateful, TokenizerArguments, TokenizerStep
from vq.engine.steps.clock import BACKWARD, DISCRIMINATOR
from vq.engine.steps.discriminator import Adversary, DiscriminatorOutput
from vq.engine.steps.micro_batches import Share, add, mean_over_ranks
from vq.engine.steps.schedules import Weights
from vq.engine.steps.sources import RECONSTRUCTION
from vq.losses import Loss
from vq.ops.balance import adaptive_weight
from vq.ops.numerics.precision import at_least_float32
from vq.quantizers import Annealing
from vq.registry import STEPS
from vq.tokenizers import Tokenizer, TokenizerOutput


@STEPS.register_module()
class AdversarialStep(TokenizerStep):
    r"""Trains the tokenizer on its losses and to fool a discriminator, and the discriminator to tell the images apart.

    The tokenizer runs forward once. The losses and the discriminator see its detached reconstruction and return their
    gradients there; one backward pass takes the weighted sum of these through the tokenizer. Each side sees the
    other as it was before the step.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1.
    Differs from the source: one forward of the tokenizer per step instead of two; the adaptive weight is that of the
        whole batch, over all micro-batches and ranks.

    A discriminator may learn before it pulls: with the adversary's `start_step=a` and the weight
    `adversarial=LinearAnnealing(first=0.0, last=w, start=b, steps=c - b)` it learns from step `a` on, and its term
    enters the tokenizer's loss after step `b` and has the full weight `w` from step `c` on.

    Args:
        tokenizer: Trained.
        losses: Name -> loss of its source and the image; unweighted, at least one of the reconstruction.
        weights: Name -> weight, one for each loss, one for `quantizer`, one for `adversarial`; each is a number or a
            function of the step, such as `LinearAnnealing`. With the adaptive weight the last one is its gain. While it
            is 0, the discriminator learns and the tokenizer does not follow it.
        adversary: The discriminator and what updates it.
        is_adaptive: Weight the adversarial loss so that its gradient at the decoder's last layer is as large as that
            of the losses, times the gain (`adaptive_weight`).
        annealing: Attribute of the quantizer -> its value as a function of the step.
        **optimization: `optimizer`, `schedule`, `max_gradient_norm`, `weight_ema`, `rates`, `decay`, all for the
            tokenizer alone; `accumulate`, `autocast`, `strategy`, `checkpoint_activations`; see `OptimizationArguments`
            and `TokenizerArguments`. Micro-batches equal one large batch but for the statistics of a discriminator
            with batch norm, which are those of a micro-batch.

    Raises:
        ValueError: If a loss has no weight or a weight no loss, there is no loss, the decoder does not say which
            layer is its last, the quantizer has no such attribute, or the weight is adaptive, there are several
            micro-batches, and the strategy divides the model among ranks.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float | Annealing],
        adversary: Adversary,
        is_adaptive: bool = True,
        annealing: Mapping[str, Annealing] | None = None,
        **optimization: Unpack[TokenizerArguments],
    ) -> None:
        checked = Weights(weights, [*losses, "quantizer", "adversarial"])
        strategy, is_accumulated = optimization.get("strategy"), optimization.get("accumulate", 1) > 1
        if strategy is not None and strategy.is_sharded and is_adaptive and is_accumulated:
            raise ValueError(
                f"is_adaptive: expected accumulate=1 with {type(strategy).__name__}, because the gradients of several "
                f"micro-batches are kept for the weight, and it divides them; set accumulate=1 or is_adaptive=False"
            )
        if not any(loss.source == RECONSTRUCTION for loss in losses.values()):
            raise ValueError(
                "losses: expected at least one of the reconstruction; the discriminator alone knows no image"
            )
        if is_adaptive and not isinstance(getattr(tokenizer.decoder, "last_layer", None), Tensor):
            raise ValueError(
                f"is_adaptive: {type(tokenizer.decoder).__name__} has no last_layer at which gradients could be "
                "compared; set is_adaptive=False"
            )
        super().__init__(tokenizer, losses=losses, weights=checked, annealing=annealing, **optimization)
        self.adversary, self.is_adaptive = adversary, is_adaptive

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Float[Tensor, ""]]:
        """Takes one optimizer step of the tokenizer, and from `start_step` on one of the discriminator."""
        self.prepare(step)
        if has_begun := step >= self.adversary.start_step:
            self.adversary.prepare(step)
        pulls = has_begun and self.weights["adversarial"] != 0
        adversarial = _AdversarialGradient(self, is_deferred=pulls and self.is_adaptive and len(batches) > 1)
        zero = torch.zeros((), device=self.device)
        sums: dict[str, Tensor] = {"adversarial_weight": zero, "loss/adversarial": zero}
        for batch, share, context in self.micro_batches(batches):
            with context:
                add(sums, self._backward(batch, share, adversarial, has_begun=has_begun))
        if adversarial.is_deferred:
            sums["adversarial_weight"] = adversarial.add_deferred()
        terms = [self.weights[name] * sums[f"loss/{name}"] for name in (*self.losses, "quantizer")]
        total = torch.stack([*terms, sums["adversarial_weight"] * sums["loss/adversarial"]]).sum()
        scalars = {"loss/total": total, **sums, **self.weights.scalars(), **self.optimization.step()}
        if not has_begun:
            return scalars
        with self.optimization.clock.part(DISCRIMINATOR):
            return scalars | self.adversary.update(sums)

    def _backward(
        self, batch: Batch, share: Share, adversarial: "_AdversarialGradient", *, has_begun: bool
    ) -> dict[str, Tensor]:
        """Image -> reconstruction -> gradients of the losses and the discriminator there -> gradients of weights."""
        image = self.image_of(batch)
        with self.optimization.networks_autocast():
            output: TokenizerOutput = self.optimization.forward(image)
        reconstruction = at_least_float32(output.reconstruction)
        seen = reconstruction.detach().requires_grad_()  # the losses' gradients end here
        inside = {name: loss for name, loss in self.losses.items() if loss.source != RECONSTRUCTION}
        terms = {
            name: self.value_of(loss, seen, image) for name, loss in self.losses.items() if name not in inside
        }
        weighted = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        with self.optimization.clock.part(BACKWARD):
            (gradient,) = torch.autograd.grad(weighted, seen)
        for name, loss in inside.items():
            terms[name] = self.value_of(loss, self.sources.of(loss, output), image)
        own = {f"loss/{name}": term for name, term in terms.items()}
        weight = torch.zeros((), device=self.device)
        if has_begun:
            with self.optimization.clock.part(DISCRIMINATOR):
                judged = self.adversary.judge(
                    seen, image, share=share.local, autocast=self.optimization.autocast
                )
            own |= {"loss/adversarial": judged.loss, **judged.scalars}
            gradient, weight = adversarial.combine(reconstruction, gradient, judged, share.local)
        of_quantizer = {"loss/quantizer": output.quantize.loss}
        of_quantizer |= {f"quantizer/{name}": value for name, value in output.quantize.metrics.items()}
        scalars = {name: share.local * value for name, value in own.items()}
        scalars |= {name: self.quantizer_share(share) * value for name, value in of_quantizer.items()}
        ends, gradients = [reconstruction], [gradient * share.local]
        for name in ("quantizer", *inside):
            if (term := scalars[f"loss/{name}"]).requires_grad:  # FSQ has no loss
                ends.append(term)
                gradients.append(torch.full_like(term, self.weights[name]))
        self.optimization.backward(ends, gradients)
        scalars["adversarial_weight"] = share.common * weight
        return {name: value.detach() for name, value in scalars.items()}

    def parts(self) -> Mapping[str, Stateful]:
        """The parts of a tokenizer step, and the discriminator's side."""
        return {**super().parts(), "adversary": self.adversary}


class _AdversarialGradient:
    """Weights the adversarial gradient of one step and adds it to that of the losses.

    The adaptive weight depends on the whole batch. With one micro-batch it is known before the backward pass, which
    then serves both gradients. With several it is known only after the last one, so the adversarial gradient is
    deferred: it is taken through the tokenizer by itself (a second backward pass) and stored (the memory of one more
    gradient).

    Args:
        step: The step that the gradient is for.
        is_deferred: Whether the weight is known only after the last micro-batch.
    """

    def __init__(self, step: AdversarialStep, *, is_deferred: bool) -> None:
        self.step, self.is_deferred = step, is_deferred
        self.gain = step.weights["adversarial"]
        self.parameters = step.optimization.optimizer.parameters
        self.last_layer: Tensor | None = getattr(step.tokenizer.decoder, "last_layer", None)
        self.deferred: list[Tensor] = []
        self.at_last_layer: list[Tensor] = []

    def combine(
        self, reconstruction: Tensor, wanted: Tensor, judged: DiscriminatorOutput, share: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient to send into the tokenizer, and the adversarial loss's weight as far as it is known.

        Args:
            reconstruction: With its graph.
            wanted: Gradient of the losses at the reconstruction.
            judged: Has the adversarial gradient there.
            share: The micro-batch's part of the step.
        """
        if self.gain == 0:
            return wanted, torch.zeros((), device=wanted.device)
        if not self.step.is_adaptive:
            return wanted + self.gain * judged.gradient, torch.full((), self.gain, device=wanted.device)
        at_last_layer = [self._at_last_layer(reconstruction, g * share) for g in (wanted, judged.gradient)]
        if not self.is_deferred:
            weight = self._weight(at_last_layer)
            return wanted + weight * judged.gradient, weight
        with self.step.optimization.clock.part(BACKWARD):
            found = torch.autograd.grad(
                reconstruction, self.parameters, judged.gradient * share, retain_graph=True, allow_unused=True
            )
        gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True)
        ]
        self.deferred = _sum(self.deferred, gradients)
        self.at_last_layer = _sum(self.at_last_layer, at_last_layer)
        return wanted, torch.zeros((), device=wanted.device)

    def add_deferred(self) -> Tensor:
        """After the last micro-batch: adds the deferred gradient to that of the losses; returns its weight."""
        weight = self._weight(self.at_last_layer)
        for parameter, gradient in zip(self.parameters, mean_over_ranks(self.deferred), strict=True):
            if parameter.grad is None:
                parameter.grad = weight * gradient
            else:
                parameter.grad.add_(weight * gradient)
        return weight

    def _at_last_layer(self, reconstruction: Tensor, gradient: Tensor) -> Tensor:
        assert self.last_layer is not None  # the constructor of the step has checked it
        with self.step.optimization.clock.part(BACKWARD):
            (found,) = torch.autograd.grad(reconstruction, self.last_layer, gradient, retain_graph=True)
        return found

    def _weight(self, at_last_layer: Sequence[Tensor]) -> Tensor:
        wanted, adversarial = mean_over_ranks(at_last_layer)
        return adaptive_weight(wanted, adversarial, gain=self.gain)


def _sum(sums: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(sums, new, strict=True)] if sums else new
