"""Alternating optimisation: the codes move to the vectors first, then everything else moves."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.data import Batch
from vq.engine.steps.base import Stateful, TokenizerStep, TrainStep
from vq.engine.steps.optimization import Mover, mean_over_ranks, shares_of
from vq.engine.steps.schedules import Constant
from vq.engine.steps.weight_ema import WeightEMA
from vq.quantizers import Codebook, GumbelQuantizer, VectorQuantizer
from vq.registry import STEPS
from vq.tokenizers import Tokenizer


@STEPS.register_module()
class AlternatingStep(TrainStep):
    """Takes optimizer steps on the codes alone, with the vectors held still; then the step that it wraps.

    The vectors (`Tokenizer.latent`) are encoded once more, without gradient and in the dtype of the wrapped step, for
    the steps on the codes. Micro-batches and ranks together give one gradient for each of these steps. Nothing else of
    a codebook's state (usage, averages, revival) changes in them; that remains the wrapped step's. Of a tokenizer with
    two levels the codes of the finer one move alone; those of the coarser one move with the rest.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.3.

    Args:
        step: The step that moves everything else; its optimizer must not hold the codes.
        optimizer: Over the parameters of the codebooks (`codebook_parameters`).
        num_codebook_steps: Steps on the codes before each step of the rest.

    Raises:
        ValueError: If the step moves no tokenizer, its quantizer has no codebook that learns by gradient, another
            quantizer before it draws at random, or both optimizers hold the same parameter.
    """

    def __init__(self, *, step: TrainStep, optimizer: Optimizer, num_codebook_steps: int = 1) -> None:
        if num_codebook_steps < 1:
            raise ValueError(f"num_codebook_steps: expected at least 1, got {num_codebook_steps}")
        if not isinstance(step, TokenizerStep):
            raise ValueError(
                f"AlternatingStep: expected a step that moves a tokenizer, got {type(step).__name__}"
            )
        self.step, self.num_codebook_steps = step, num_codebook_steps
        self.mover = Mover(optimizer=optimizer, schedule=Constant())
        self.quantizer, self._is_initialised = _checked_quantizer(step.tokenizer), False
        if {id(p) for p in self.mover.parameters} & {id(p) for p in step.mover.parameters}:
            raise ValueError("AlternatingStep: the wrapped step's optimizer also holds the codebook")

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        """The wrapped step's."""
        return self.step.model

    @property
    def weight_ema(self) -> WeightEMA | None:  # type: ignore[override]
        """The wrapped step's."""
        return self.step.weight_ema

    @property
    def accumulate(self) -> int:  # type: ignore[override]
        """The wrapped step's."""
        return self.step.accumulate

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The wrapped step's."""
        return self.step.device

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """See `TrainStep`."""
        # Codes that wait for the first vectors have nowhere to go yet; asked once, then known.
        self._is_initialised = self._is_initialised or _are_initialised(self.model)
        if not self._is_initialised:
            return self.step(batches, step)
        vectors = [self._encode(batch) for batch in batches]
        for _ in range(self.num_codebook_steps):
            loss = self._move_codes(vectors, step)
        return self.step(batches, step) | {"loss/codes_alone": loss}

    def _encode(self, batch: Batch) -> Tensor:
        return self.step.latent(batch).flatten(0, -2)

    def _move_codes(self, vectors: Sequence[Tensor], step: int = 0) -> Tensor:
        """One optimizer step on the codes; returns the loss before it, the mean over ranks."""
        self.mover.prepare(step)
        total = torch.zeros((), device=self.device)
        quantizer = self.quantizer
        for z, share in zip(vectors, shares_of([len(z) for z in vectors], vectors[0]), strict=True):
            indices = quantizer.encode(z)
            codes = quantizer.distance.place(quantizer.codebook.vectors.to(z.dtype))
            loss = share.local * quantizer.codebook.loss(quantizer.distance.place(z), codes[indices])
            torch.autograd.backward(loss)
            total = total + loss.detach()
        gradients = [p.grad for p in self.mover.parameters if p.grad is not None]
        total, *means = mean_over_ranks([total, *gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean)
        self.mover.move()
        return total

    def parts(self) -> Mapping[str, Stateful]:
        """See `TrainStep`; the wrapped step is one of them, with all that it has."""
        return {"step": self.step, "optimizer": self.mover}


def _checked_quantizer(tokenizer: Tokenizer) -> VectorQuantizer:
    """The tokenizer's quantizer; refused if its codes do not learn by gradient, or its vectors cannot be seen twice."""
    quantizer = tokenizer.quantizer
    if not isinstance(quantizer, VectorQuantizer) or not codebook_parameters(tokenizer):
        raise ValueError(
            f"AlternatingStep: expected a VectorQuantizer whose codebook learns by gradient, got "
            f"{type(quantizer).__name__}"
        )
    if any(isinstance(part, GumbelQuantizer) for part in tokenizer.modules()):
        raise ValueError(
            "AlternatingStep: expected vectors that are the same when an image is encoded again, got a tokenizer "
            "with a GumbelQuantizer, which draws; take another top_quantizer"
        )
    return quantizer


def _are_initialised(model: nn.Module) -> bool:
    return all(bool(book.initialised) for book in model.modules() if isinstance(book, Codebook))


def codebook_parameters(tokenizer: nn.Module) -> list[nn.Parameter]:
    """The parameters of the tokenizer's codebook."""
    codebook = getattr(tokenizer.quantizer, "codebook", None)
    return list(codebook.parameters()) if isinstance(codebook, nn.Module) else []
