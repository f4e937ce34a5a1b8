"""Trains a tokenizer to reconstruct images."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from vq.data import Batch
from vq.engine.steps.base import TokenizerArguments, TokenizerStep
from vq.engine.steps.micro_batches import Share, add
from vq.engine.steps.schedules import Weights
from vq.losses import Loss
from vq.quantizers import Annealing
from vq.registry import STEPS
from vq.tokenizers import Tokenizer, TokenizerOutput


@STEPS.register_module()
class ReconstructionStep(TokenizerStep):
    """Reconstructs the images, and lowers the weighted sum of the losses.

    Args:
        tokenizer: Trained.
        losses: Name -> loss of its source, most often the reconstruction, and the image; unweighted.
        weights: Name -> weight, one for each loss and one for `quantizer`, the quantizer's own loss; each is a number
            or a function of the step, such as `LinearAnnealing`.
        annealing: Attribute of the quantizer -> its value as a function of the step, such as
            `temperature` of a `GumbelQuantizer`.
        **optimization: `optimizer`, `schedule`, `max_gradient_norm`, `weight_ema`, `accumulate`, `autocast`,
            `strategy`, `checkpoint_activations`, `rates`, `decay`; see `OptimizationArguments` and
            `TokenizerArguments`.

    Raises:
        ValueError: If a loss has no weight or a weight no loss, or the quantizer has no such attribute.

    Example:
        ```python
        step = ReconstructionStep(
            tokenizer=tokenizer,
            losses={"l1": L1Loss()},
            weights={"l1": 1.0, "quantizer": 1.0},
            optimizer=torch.optim.Adam(tokenizer.parameters(), lr=1e-3),
            weight_ema=0.99,
        )
        scalars = step([{"image": images}], 0)  # uint8 images, (B, 3, H, W)
        ```
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float | Annealing],
        annealing: Mapping[str, Annealing] | None = None,
        **optimization: Unpack[TokenizerArguments],
    ) -> None:
        checked = Weights(weights, [*losses, "quantizer"])
        super().__init__(tokenizer, losses=losses, weights=checked, annealing=annealing, **optimization)

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Float[Tensor, ""]]:
        """Takes one optimizer step of the tokenizer."""
        self.prepare(step)
        sums: dict[str, Tensor] = {}
        for batch, share, context in self.micro_batches(batches):
            with context:
                add(sums, self._backward(batch, share))
        total = torch.stack([self.weights[name] * sums[f"loss/{name}"] for name in self.weights]).sum()
        return {"loss/total": total, **sums, **self.weights.scalars(), **self.optimization.step()}

    def _backward(self, batch: Mapping[str, Any], share: Share) -> dict[str, Tensor]:
        """Image -> reconstruction -> losses -> gradients, which are added to those of earlier micro-batches.

        A batch from a `FeatureLoader` has the tokenizer's latent in place of images, which no loss may then need.
        """
        given = (
            {"latent": self.stored_latent(batch)} if "features" in batch else {"image": self.image_of(batch)}
        )
        with self.optimization.networks_autocast():
            output: TokenizerOutput = self.optimization.forward(**given)
        terms = {
            name: share.local * self.value_of(loss, self.sources.of(loss, output), given["image"])
            for name, loss in self.losses.items()
        }
        common = self.quantizer_share(share)
        terms["quantizer"] = common * output.quantize.loss
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        self.optimization.backward(total)
        scalars = {f"loss/{name}": term for name, term in terms.items()}
        for name, value in output.quantize.metrics.items():
            scalars[f"quantizer/{name}"] = common * value
        return {name: value.detach() for name, value in scalars.items()}
