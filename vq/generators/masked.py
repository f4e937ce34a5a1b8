"""Masked generation in a few passes: all positions are sampled at once, the most confident ones are kept."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vq.generators.base import Generator, GeneratorOutput
from vq.generators.decoder import DecoderTransformer
from vq.generators.errors import GeneratorError
from vq.generators.heads import LinearHead
from vq.generators.sampling import Sampler, uniform_numbers
from vq.generators.stem import TokenStem
from vq.ops.numerics.precision import at_least_float32
from vq.registry import GENERATORS


@GENERATORS.register_module()
class MaskedGenerator(Generator):
    """Predicts masked positions from all others with a bidirectional transformer (MaskGIT).

    Training masks a fraction cos(pi u / 2) of the positions, with u uniform in [0, 1). The loss is over the masked
    positions alone. Sampling starts with every position masked. Each of `num_steps` passes samples all masked
    positions; after pass s, the fraction cos(pi s / (2 num_steps)) of the positions with the lowest confidence is
    masked again. The confidence is the log-probability of the sampled index under the (guided) logits, plus Gumbel
    noise times choice_temperature (1 - (s - 1) / num_steps). The log-probability is that at temperature 1, whatever
    temperature, top-k and top-p are used for sampling. Ties are kept in raster order.

    In eval mode the mask of an image is a function of its indices, so that validation masks the same positions in
    every epoch, for any batch size and number of ranks.

    Source: Chang et al. 2022, https://arxiv.org/abs/2202.04200, sections 3.1 and 3.2; the noise is that of its
        published code (google-research/maskgit), which also takes the confidence at temperature 1.
    Differs from the source: there is classifier-free guidance, and temperature, top-k and top-p for sampling; blocks
        are pre-norm; the loss has no label smoothing (0.1 in its code); the noise falls from choice_temperature in
        the first pass to choice_temperature / num_steps in the last, whereas in its code it falls from
        (1 - 1 / num_steps) choice_temperature to 0; a pass may keep no new position, whereas its code keeps at least
        one.

    Args:
        transformer: A transformer that is applied without a causal mask.
        vocabulary_size: The number of codes. The embedding table has one more row, the mask token.
        num_classes: The number of classes.
        grid: (rows, columns) or (length,).
        num_steps: The number of sampling passes.
        choice_temperature: The scale of the Gumbel noise in the first pass.
        class_dropout: The probability in [0, 1] of training without the class.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> generator = MaskedGenerator(
        ...     transformer=DecoderTransformer(width=16, depth=1, num_heads=2),
        ...     vocabulary_size=8, num_classes=3, grid=(2, 3), num_steps=3,
        ... )
        >>> generator.generate(torch.tensor([0, 2]), seeds=torch.tensor([0, 1]), guidance=2.0).shape
        torch.Size([2, 2, 3])
    """

    def __init__(
        self,
        *,
        transformer: DecoderTransformer,
        vocabulary_size: int,
        num_classes: int,
        grid: Sequence[int],
        num_steps: int = 8,
        choice_temperature: float = 4.5,
        class_dropout: float = 0.1,
    ) -> None:
        super().__init__(
            vocabulary_size=vocabulary_size, num_classes=num_classes, grid=grid, class_dropout=class_dropout
        )
        if num_steps < 1 or choice_temperature < 0:
            raise GeneratorError(
                f"MaskedGenerator: expected num_steps of at least 1 and choice_temperature of at least 0, got "
                f"{num_steps} and {choice_temperature}"
            )
        self.num_steps, self.choice_temperature = num_steps, choice_temperature
        self.stem = TokenStem(
            width=transformer.width,
            vocabulary_size=vocabulary_size + 1,
            num_classes=num_classes,
            num_indices=1,
            grid=grid,
            head_width=transformer.head_width if transformer.is_rotary else None,
            has_class_key=transformer.has_class_key,
        )
        self.transformer = transformer
        self.head = LinearHead(width=transformer.width, vocabulary_size=vocabulary_size)

    def propose(self, indices: Int64[Tensor, "b l q"], label: Int64[Tensor, "b"]) -> GeneratorOutput:
        """Masks positions and predicts them; loss and accuracy are those of the masked positions."""
        if self.training:
            uniform = torch.rand(len(indices), 1 + self.num_positions, device=indices.device)
        else:
            weights = torch.arange(1, self.num_positions + 1, device=indices.device)
            uniform = uniform_numbers((indices[:, :, 0] * weights).sum(1), 1 + self.num_positions)
        is_masked = self._mask(uniform)
        logits = self._logits(indices.masked_fill(is_masked[..., None], self.vocabulary_size), label)
        flat, share = is_masked.flatten(), is_masked.sum()
        nats = F.cross_entropy(at_least_float32(logits.flatten(0, 1)), indices.flatten(), reduction="none")
        is_right = logits.detach().argmax(-1).flatten() == indices.flatten()
        return GeneratorOutput(
            logits=logits[:, :, None],
            loss=(nats * flat).sum() / share,
            accuracy=(is_right & flat).sum() / share,
            num_scored=share,
        )

    def draw(
        self,
        label: Int64[Tensor, "rows"],
        sampler: Sampler,
        seeds: Int64[Tensor, "b"],
        given: Int64[Tensor, "b l q"],
    ) -> Int64[Tensor, "b l q"]:
        """Samples the indices in `num_steps` passes."""
        indices = given[:, :, 0].clone()
        is_open = indices < 0
        count = is_open.sum(1)
        for step in range(self.num_steps):
            progress = step / self.num_steps
            seen = torch.where(is_open, self.vocabulary_size, indices)
            logits = sampler.guided(self._logits(sampler.rows(seen)[:, :, None], label), progress)
            uniform = uniform_numbers(seeds, self.num_positions, stream=2 * step)
            drawn = sampler.pick(logits, uniform)
            indices = torch.where(is_open, drawn, indices)
            left = (count * math.cos(math.pi / 2 * (step + 1) / self.num_steps)).long()
            if step + 1 == self.num_steps:
                break
            noise = uniform_numbers(seeds, self.num_positions, stream=2 * step + 1).clamp_min(1e-300)
            gumbel = -(-noise.log()).log()
            confidence = sampler.confidence(logits, drawn) + self.choice_temperature * (1 - progress) * gumbel
            # Kept positions stay; of the others, the least confident are masked again.
            surest = confidence.masked_fill(~is_open, torch.inf).argsort(dim=1, descending=True, stable=True)
            is_open = is_open & (surest.argsort(dim=1) >= self.num_positions - left[:, None])
        return indices[:, :, None]

    def _mask(self, uniform: Float[Tensor, "b l1"]) -> Bool[Tensor, "b l"]:
        share = torch.cos(math.pi / 2 * uniform[:, :1])
        count = (share * self.num_positions).ceil().clamp_min(1)
        return uniform[:, 1:].argsort(dim=1).argsort(dim=1) < count

    def _logits(
        self, indices: Int64[Tensor, "rows l q"], label: Int64[Tensor, "rows"]
    ) -> Float[Tensor, "rows l v"]:
        places = torch.arange(self.num_positions, device=indices.device)
        x = self.stem(label, indices, places)
        hidden = self.transformer(x, rotation=self.stem.rotation(places), causal=False)
        logits: Tensor = self.head.logits(hidden[:, 1:])
        return logits
