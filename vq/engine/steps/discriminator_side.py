"""The other side of adversarial training: a discriminator, what it wants, and what moves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq import distributed
from vq.engine.steps.optimization import Mover, average_gradients, check_weights, mean_over_ranks
from vq.engine.steps.schedules import Schedule
from vq.engine.steps.tuning import uncompiled
from vq.losses import AdversarialObjective, DiscriminatorPenalty
from vq.ops.numerics.precision import at_least_float32
from vq.registry import ENGINES

State = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the discriminator makes of a batch of reconstructions.

    Attributes:
        loss: The generator's adversarial loss, unweighted, without a graph.
        gradient: Of that loss, at the reconstructions.
        scalars: What to log.
    """

    loss: Tensor
    gradient: Tensor
    scalars: dict[str, Tensor]


@ENGINES.register_module()
class Adversary:
    """Judges reconstructions, and learns to tell them from images.

    Each judgement runs the discriminator once over the reconstructions and once over the images. Its gradients
    are averaged over the ranks once a step.

    Args:
        discriminator: Images in [-1, 1] to logits, positive for real; moved.
        objective: What both sides lower, as functions of the logits.
        optimizer: Over the discriminator's parameters.
        schedule: The factor of its learning rates; counts from `start_step`.
        start_step: The first step at which it judges and learns.
        penalties: Name -> what is added to its loss.
        weights: Name -> weight, one for each penalty and one for `objective`; by default only that, of 1.
        max_gradient_norm: Its gradient's 2-norm is clipped to this; None to leave it.
        augmentation: Done to all that it sees, such as `DiffAugment`; None for nothing.

    Raises:
        ValueError: If the start is below 0, or a penalty has no weight or a weight no penalty.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        objective: AdversarialObjective,
        optimizer: Optimizer,
        schedule: Schedule,
        start_step: int = 0,
        penalties: Mapping[str, DiscriminatorPenalty] | None = None,
        weights: Mapping[str, float] | None = None,
        max_gradient_norm: float | None = None,
        augmentation: nn.Module | None = None,
    ) -> None:
        if start_step < 0:
            raise ValueError(f"start_step: expected at least 0, got {start_step}; 0 is from the first step")
        self.penalties = dict(penalties or {})
        self.weights = dict(weights or {"objective": 1.0})
        check_weights(self.weights, ["objective", *self.penalties])
        self.discriminator, self.objective, self.start_step = discriminator, objective, start_step
        self.augmentation = nn.Identity() if augmentation is None else augmentation
        self.mover = Mover(optimizer=optimizer, schedule=schedule, max_gradient_norm=max_gradient_norm)
        self.device = self.mover.parameters[0].device
        for penalty in self.penalties.values():
            penalty.to(self.device)
        for tensor in (*discriminator.parameters(), *discriminator.buffers()):
            tensor.data.copy_(distributed.broadcast(tensor.data))
        discriminator.train()

    def prepare(self, step: int) -> None:
        """Begins a step."""
        self.mover.prepare(step - self.start_step)
        self.step = step

    def judge(
        self, reconstruction: Tensor, image: Tensor, *, share: float | Tensor, autocast: bool
    ) -> Verdict:
        """Tells the reconstructions what they lack, and adds to its own gradients.

        Args:
            reconstruction: In [-1, 1], a leaf that requires a gradient: what lies before it cannot be reached.
            image: In [-1, 1].
            share: The batch's part of the step.
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
        torch.autograd.backward(total * share, inputs=self.mover.parameters)
        accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
        scalars = {
            "total": total,
            **terms,
            "accuracy": accuracy,
            "logit_real": real.mean(),
            "logit_fake": fake.mean(),
        }
        named = {f"discriminator/{name}": value.detach() for name, value in scalars.items()}
        return Verdict(loss=loss.detach(), gradient=gradient, scalars=named)

    def move(self, scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Ends a step: one move of the discriminator.

        Args:
            scalars: The step's means over the micro-batches of what `judge` said.
        """
        average_gradients(self.mover.parameters)
        logits = [scalars["discriminator/logit_real"], scalars["discriminator/logit_fake"]]
        if self.penalties:
            logits = mean_over_ranks(logits)
        for penalty in self.penalties.values():
            penalty.update(*logits)
        return {f"discriminator/{name}": value for name, value in self.mover.move().items()}

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(self.augmentation(image))
        return logits

    def state_dict(self) -> State:
        """The discriminator's weights, and everything else that its next step depends on."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.mover.state_dict(),
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
            raise ValueError(f"the {what} is another one than the config's: {error}") from error
        self.mover.load_state_dict(state["optimizer"])
