"""The discriminator's side of adversarial training: what it says of reconstructions, and how it learns."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq import distributed
from vq.engine.steps.micro_batches import average_gradients, mean_over_ranks
from vq.engine.steps.optimization import OptimizerArguments, ScheduledOptimizer
from vq.engine.steps.schedules import Weights
from vq.engine.steps.tuning import uncompiled
from vq.losses import AdversarialObjective, DiscriminatorPenalty
from vq.ops.numerics.precision import at_least_float32
from vq.quantizers import Annealing
from vq.registry import ENGINES

State = dict[str, object]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscriminatorOutput:
    """What the discriminator says of a batch of reconstructions.

    Attributes:
        loss: The generator's adversarial loss, unweighted, without a graph.
        gradient: Of that loss, at the reconstructions.
        scalars: To be logged.
    """

    loss: Float[Tensor, ""]
    gradient: Float[Tensor, "batch channels height width"]
    scalars: dict[str, Float[Tensor, ""]]


@ENGINES.register_module()
class Adversary:
    """Tells reconstructions from images, and learns to.

    For each micro-batch the discriminator runs once over the reconstructions and once over the images. Its gradients
    are averaged over the ranks once per step.

    Args:
        discriminator: Maps images in [-1, 1] to logits, positive for real images; trained.
        objective: The losses of both sides, as functions of the logits.
        start_step: The first step in which the discriminator is used and learns. Its schedule counts from there.
        penalties: Name -> what is added to the discriminator's loss.
        weights: Name -> weight, one for each penalty and one for `objective`; by default only that, of 1. Each is a
            number or a function of the step of the run, which is not counted from `start_step`.
        augmentation: Applied to all images that the discriminator sees, such as `DiffAugment`; None for nothing.
        **optimizer: `optimizer`, `schedule`, `max_gradient_norm`; see `OptimizerArguments`.

    Raises:
        ValueError: If the start is below 0, or a penalty has no weight or a weight no penalty.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        objective: AdversarialObjective,
        start_step: int = 0,
        penalties: Mapping[str, DiscriminatorPenalty] | None = None,
        weights: Mapping[str, float | Annealing] | None = None,
        augmentation: nn.Module | None = None,
        **optimizer: Unpack[OptimizerArguments],
    ) -> None:
        if start_step < 0:
            raise ValueError(f"start_step: expected at least 0, got {start_step}; 0 is from the first step")
        self.penalties = dict(penalties or {})
        self.weights = Weights(weights or {"objective": 1.0}, ["objective", *self.penalties])
        self.discriminator, self.objective, self.start_step = discriminator, objective, start_step
        self.augmentation = nn.Identity() if augmentation is None else augmentation
        if (end := optimizer.get("max_steps")) is not None:
            optimizer["max_steps"] = _steps_after(start_step, end)
        trained = [p for p in discriminator.parameters() if p.requires_grad]
        self.optimizer = ScheduledOptimizer(trained, **optimizer)
        self.device = self.optimizer.parameters[0].device
        for penalty in self.penalties.values():
            penalty.to(self.device)
        for tensor in (*discriminator.parameters(), *discriminator.buffers()):
            tensor.data.copy_(distributed.broadcast(tensor.data))
        discriminator.train()

    def prepare(self, step: int) -> None:
        """Begins a step: sets the learning rates and weights, and drops old gradients."""
        self.optimizer.prepare(step - self.start_step)
        self.weights.prepare(step)
        self.step = step

    def judge(
        self,
        reconstruction: Float[Tensor, "batch channels height width"],
        image: Float[Tensor, "batch channels height width"],
        *,
        share: float | Float[Tensor, ""],
        autocast: bool,
    ) -> DiscriminatorOutput:
        """Returns the gradient that fools the discriminator, and adds the gradients of the discriminator's own loss.

        Args:
            reconstruction: In [-1, 1], a leaf that requires a gradient: nothing flows back beyond it.
            image: In [-1, 1].
            share: The micro-batch's part of the step.
            autocast: Run the discriminator in bfloat16; losses and penalties stay in float32.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            fake = at_least_float32(self._logits(reconstruction))
            real = at_least_float32(self._logits(image))
        loss = self.objective.generator(fake)
        (gradient,) = torch.autograd.grad(loss, reconstruction, retain_graph=True)
        terms = {"objective": self.objective.discriminator(real, fake)}
        for name, penalty in self.penalties.items():
            if self.step % penalty.every == 0:
                with uncompiled(self.discriminator):
                    term = penalty(
                        judge=self._logits, image=image, reconstruction=reconstruction, real=real, fake=fake
                    )
                terms[name] = penalty.every * term
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        torch.autograd.backward(total * share, inputs=self.optimizer.parameters)
        accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
        scalars = {
            "total": total,
            **terms,
            "accuracy": accuracy,
            "logit_real": real.mean(),
            "logit_fake": fake.mean(),
        }
        named = {f"discriminator/{name}": value.detach() for name, value in scalars.items()}
        return DiscriminatorOutput(loss=loss.detach(), gradient=gradient, scalars=named)

    def update(self, scalars: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
        """Ends a step: updates the discriminator.

        Args:
            scalars: The means over the step's micro-batches of the scalars of `judge`.
        """
        average_gradients(self.optimizer.parameters)
        logits = [scalars["discriminator/logit_real"], scalars["discriminator/logit_fake"]]
        if self.penalties:
            logits = mean_over_ranks(logits)
        for penalty in self.penalties.values():
            penalty.update(*logits)
        named = {f"discriminator/{name}": value for name, value in self.optimizer.step().items()}
        return named | self.weights.scalars("discriminator/")

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(self.augmentation(image))
        return logits

    def state_dict(self) -> State:
        """The discriminator's weights, and everything else that its next step depends on."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "penalties": {name: penalty.state_dict() for name, penalty in self.penalties.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`; a penalty that the state does not have begins anew.

        Raises:
            ValueError: If the state is of another discriminator, penalty or optimizer.
        """
        what = "discriminator"
        try:
            self.discriminator.load_state_dict(state["discriminator"])
            for name, penalty in self.penalties.items():
                what = f"penalty {name!r}"
                if name in state["penalties"]:
                    penalty.load_state_dict(state["penalties"][name])
        except RuntimeError as error:  # what torch raises; a ValueError is a checkpoint that does not fit
            raise ValueError(f"the {what} differs from the config's: {error}") from error
        self.optimizer.load_state_dict(state["optimizer"])


def _steps_after(start_step: int, max_steps: int) -> int:
    """The length of the discriminator's schedule, at least 1."""
    if start_step >= max_steps:
        logger.warning(
            "adversary.start_step: the run ends at step %d, before step %d: the discriminator is never used",
            max_steps,
            start_step,
        )
    return max(1, max_steps - start_step)
