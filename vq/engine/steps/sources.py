"""What losses compare with the image: the reconstruction, or features inside the tokenizer."""

from collections.abc import Iterable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vq.losses import Loss
from vq.text import suggest
from vq.tokenizers import Tokenizer, TokenizerOutput

RECONSTRUCTION, LATENT, QUANTIZED = "reconstruction", "latent", "quantized"


class Sources:
    """Reads what each loss compares (its `source`) from a tokenizer's forward.

    Args:
        tokenizer: The tokenizer, whose parts are watched if a source names them.
        losses: The losses.

    Raises:
        ValueError: If a source is neither `reconstruction`, `latent`, `quantized` nor a part of the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, losses: Iterable[Loss]) -> None:
        self._seen: dict[str, Any] = {}
        known = {name for name, _ in tokenizer.named_modules() if name}
        for source in {loss.source for loss in losses} - {RECONSTRUCTION, LATENT, QUANTIZED}:
            if source not in known:
                raise ValueError(
                    f"source: expected reconstruction, latent, quantized or a part of the tokenizer, got {source!r}"
                    f"{suggest(source, known)}"
                )
            tokenizer.get_submodule(source).register_forward_hook(self._watcher(source))

    def of(self, loss: Loss, output: TokenizerOutput) -> Float[Tensor, "batch channels *position"]:
        """What a loss compares, with its graph, after the tokenizer's forward that gave `output`.

        Raises:
            ValueError: If the part that a source names is not called in the forward, or returns no tensor.
        """
        if loss.source == RECONSTRUCTION:
            return output.reconstruction
        if loss.source == LATENT:
            return output.latent.movedim(-1, 1)
        if loss.source == QUANTIZED:
            return output.quantize.quantized.movedim(-1, 1)
        features = self._seen.pop(loss.source, None)
        if not isinstance(features, Tensor):
            raise ValueError(
                f"source: expected a part of the tokenizer that returns a tensor in its forward, got {loss.source!r}, "
                f"which {'is not called' if features is None else f'returns a {type(features).__name__}'}; name one of "
                f"its layers"
            )
        return features

    def _watcher(self, source: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._seen[source] = output

        return keep
