"""Alternating optimisation: the codes move to the vectors first, then everything else moves."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq import distributed
from vq.data import Batch
from vq.engine.moving import restore_optimizer
from vq.engine.steps import State, TrainStep
from vq.ops.images import to_signed_unit
from vq.quantizers import VectorQuantizer
from vq.registry import STEPS


@STEPS.register_module()
class AlternatingStep(TrainStep):
    """Takes optimizer steps on the codes alone, with the vectors held still; then the step that it wraps.

    The vectors are encoded once more, without gradient, for the steps on the codes. Micro-batches and ranks
    together give one gradient for each of these steps. Nothing else of a codebook's state (usage, averages,
    revival) changes in them; that remains the wrapped step's.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.3.

    Args:
        step: The step that moves everything else; its optimizer must not hold the codes.
        optimizer: Over the parameters of the codebooks (`codebook_parameters`).
        num_codebook_steps: Steps on the codes before each step of the rest.

    Raises:
        ValueError: If the tokenizer's quantizer has no codebook that learns by gradient, or both optimizers
            hold the same parameter.
    """

    def __init__(self, *, step: TrainStep, optimizer: Optimizer, num_codebook_steps: int = 1) -> None:
        if num_codebook_steps < 1:
            raise ValueError(f"num_codebook_steps: expected at least 1, got {num_codebook_steps}")
        self.step, self.optimizer, self.num_codebook_steps = step, optimizer, num_codebook_steps
        self.model, self.weight_ema = step.model, step.weight_ema
        self.accumulate, self.device = step.accumulate, step.device
        quantizer = step.model.quantizer
        if not isinstance(quantizer, VectorQuantizer) or not codebook_parameters(step.model):
            raise ValueError(
                f"AlternatingStep: expected a VectorQuantizer whose codebook learns by gradient, got "
                f"{type(quantizer).__name__}"
            )
        self.quantizer, self._is_initialised = quantizer, False
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        others: Optimizer = step.optimizer  # type: ignore[attr-defined]
        if own & {id(p) for group in others.param_groups for p in group["params"]}:
            raise ValueError("AlternatingStep: the wrapped step's optimizer also holds the codebook")

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        # Codes that wait for the first vectors have nowhere to go yet; asked once, then known.
        self._is_initialised = self._is_initialised or bool(self.quantizer.codebook.initialised)
        if not self._is_initialised:
            return self.step(batches, step)
        vectors = [self._encode(batch) for batch in batches]
        for _ in range(self.num_codebook_steps):
            loss = self._move_codes(vectors)
        return self.step(batches, step) | {"loss/codes_alone": loss}

    @torch.no_grad()
    def _encode(self, batch: Batch) -> Tensor:
        image = to_signed_unit(batch["image"].to(self.device, non_blocking=True))
        latent: Tensor = self.model.pre_quant(self.model.encoder(image))  # type: ignore[operator]
        return latent.float().movedim(1, -1).flatten(0, -2)

    def _move_codes(self, vectors: Sequence[Tensor]) -> Tensor:
        """One optimizer step on the codes; returns the loss before it, the mean over ranks."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        quantizer = self.quantizer
        for z in vectors:
            indices = quantizer.encode(z)
            codes = quantizer.distance.place(quantizer.codebook.vectors.float())
            loss = quantizer.codebook.loss(quantizer.distance.place(z), codes[indices]) / len(vectors)
            torch.autograd.backward(loss)
            total = total + loss.detach()
        gradients = [
            p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        flat = torch.cat([total[None], *(gradient.flatten() for gradient in gradients)])
        total, *parts = torch.split(
            distributed.all_reduce_sum(flat) / distributed.world_size(),
            [1, *(gradient.numel() for gradient in gradients)],
        )
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        self.optimizer.step()
        return total[0]

    def state_dict(self) -> State:
        """See `TrainStep`."""
        return {"step": self.step.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """See `TrainStep`."""
        self.step.load_state_dict(state["step"])  # type: ignore[arg-type]
        restore_optimizer(self.optimizer, state["optimizer"])


def codebook_parameters(tokenizer: nn.Module) -> list[nn.Parameter]:
    """The parameters of the tokenizer's codebook."""
    codebook = getattr(tokenizer.quantizer, "codebook", None)
    return list(codebook.parameters()) if isinstance(codebook, nn.Module) else []
