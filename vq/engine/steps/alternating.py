"""Alternating optimisation: the codes take optimizer steps of their own before each step of everything else."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.data import Batch
from vq.engine.steps.base import Stateful, TokenizerStep, TrainStep
from vq.engine.steps.checks import check_not_sharded
from vq.engine.steps.clock import BACKWARD, OPTIMIZER
from vq.engine.steps.micro_batches import average_gradients, shares_of
from vq.engine.steps.optimization import ScheduledOptimizer
from vq.quantizers import Codebook, GumbelQuantizer, VectorQuantizer
from vq.registry import STEPS
from vq.tokenizers import Tokenizer


@STEPS.register_module()
class AlternatingStep(TrainStep):
    """Takes optimizer steps on the codes alone, while the vectors stay fixed; then takes the step that it wraps.

    The vectors (`Tokenizer.latent`) are encoded once more, without gradient and in the dtype of the wrapped step, for
    the steps on the codes. Micro-batches and ranks together give one gradient for each of these steps. Nothing else of
    a codebook's state (usage, averages, revival) changes in them; that remains the wrapped step's. Of a tokenizer with
    two levels only the codes of the finer level take these steps; those of the coarser one learn with the rest.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.3.

    Args:
        step: Updates everything else. If its `optimizer` was given as a function, the codes are taken from it.
        optimizer: A function that makes an optimizer of the codebook's parameters, or an optimizer that has them
            (`codebook_parameters`).
        num_codebook_steps: Steps on the codes before each step of the rest.

    Raises:
        ValueError: If the step trains no tokenizer, its quantizer has no codebook that learns by gradient, another
            quantizer before it draws at random, or both optimizers hold the same parameter.
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        optimizer: Optimizer | Callable[..., Optimizer],
        num_codebook_steps: int = 1,
    ) -> None:
        if num_codebook_steps < 1:
            raise ValueError(f"num_codebook_steps: expected at least 1, got {num_codebook_steps}")
        if not isinstance(step, TokenizerStep):
            raise ValueError(
                f"AlternatingStep: expected a step that trains a tokenizer, got {type(step).__name__}"
            )
        check_not_sharded(step.optimization.strategy, "AlternatingStep")
        self.step, self.num_codebook_steps = step, num_codebook_steps
        self.quantizer, self._is_initialised = _checked_quantizer(step.tokenizer), False
        self.optimizer = ScheduledOptimizer(codebook_parameters(step.tokenizer), optimizer=optimizer)
        try:
            step.optimization.optimizer = step.optimization.optimizer.without(self.optimizer.parameters)
        except ValueError as error:
            raise ValueError(
                "AlternatingStep: the wrapped step's optimizer also holds the codebook"
            ) from error
        self.optimization = step.optimization

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Float[Tensor, ""]]:
        """Takes `num_codebook_steps` steps on the codes alone, then one step of the wrapped step."""
        # Codes that are initialised from the first vectors have no values before these; asked until the answer is yes.
        self._is_initialised = self._is_initialised or _are_initialised(self.model)
        if not self._is_initialised:
            return self.step(batches, step)
        vectors = [self._encode(batch) for batch in batches]
        for _ in range(self.num_codebook_steps):
            loss = self._update_codes(vectors, step)
        return self.step(batches, step) | {"loss/codes_alone": loss}

    def _encode(self, batch: Batch) -> Tensor:
        return self.step.latent(batch).flatten(0, -2)

    def _update_codes(self, vectors: Sequence[Tensor], step: int = 0) -> Tensor:
        """Takes one optimizer step on the codes; returns this rank's share of the loss before it."""
        self.optimizer.prepare(step)
        total = torch.zeros((), device=self.device)
        for z, share in zip(vectors, shares_of([len(z) for z in vectors], vectors[0]), strict=True):
            loss = share.local * self._loss(z)
            with self.optimization.clock.part(BACKWARD):
                torch.autograd.backward(loss)
            total = total + loss.detach()
        with self.optimization.clock.part(OPTIMIZER):
            average_gradients(self.optimizer.parameters)
            self.optimizer.step()
        return total

    def _loss(self, z: Tensor) -> Tensor:
        """The codebook's loss for fixed vectors, in the space of the quantizer's distance."""
        quantizer = self.quantizer
        indices = quantizer.encode(z)
        codes = quantizer.distance.place(quantizer.codebook.vectors.to(z.dtype))
        return quantizer.codebook.loss(quantizer.distance.place(z), codes[indices])

    def updated_parameters(self) -> list[nn.Parameter]:
        """Those of the wrapped step, and the codes."""
        return [*self.step.updated_parameters(), *self.optimizer.parameters]

    def parts(self) -> Mapping[str, Stateful]:
        """The wrapped step with all of its parts, and the optimizer of the codes."""
        return {"step": self.step, "optimizer": self.optimizer}


def _checked_quantizer(tokenizer: Tokenizer) -> VectorQuantizer:
    """The tokenizer's quantizer; refused if its codes do not learn by gradient, or encoding again draws anew."""
    quantizer = tokenizer.quantizer
    if not isinstance(quantizer, VectorQuantizer) or not codebook_parameters(tokenizer):
        book = getattr(quantizer, "codebook", None)
        raise ValueError(
            "AlternatingStep: expected a VectorQuantizer whose codebook learns by gradient, such as LearnedCodebook, "
            f"got {type(quantizer).__name__}" + ("" if book is None else f" with {type(book).__name__}")
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
