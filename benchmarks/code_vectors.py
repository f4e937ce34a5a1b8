"""A generator that is given the vectors of the codes, for `configs/compare/token_forms.py`; nothing else uses it."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators import TransformerGenerator
from vq.quantizers import Quantizer
from vq.registry import GENERATORS


class CodeVectors(nn.Module):
    """Maps indices to a linear function of their code vectors; in place of a learned table of embeddings.

    Args:
        vectors: The code vectors in the order of the indices. They are not learned.
        width: Channels of the result.
    """

    def __init__(self, vectors: Float[Tensor, "size dim"], *, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.project = nn.Linear(vectors.shape[1], width)

    def forward(self, indices: Int64[Tensor, "*axes"]) -> Float[Tensor, "*axes width"]:
        """Embeds indices."""
        embedded: Tensor = self.project(self.vectors[indices])
        return embedded


@GENERATORS.register_module()
class CodeVectorGenerator(TransformerGenerator):
    """A `TransformerGenerator` whose input is the vector of each code, not a learned embedding of its index.

    It still predicts indices.

    Args:
        quantizer: Decodes indices; it must have no weights, as FSQ has none.
        **options: Those of `TransformerGenerator`, with one index per position.
    """

    def __init__(self, *, quantizer: Quantizer, **options: Any) -> None:
        super().__init__(**options)
        if list(quantizer.parameters()):
            raise ValueError(f"CodeVectorGenerator: expected a quantizer without weights, got {quantizer}")
        with torch.no_grad():
            vectors = quantizer.decode(torch.arange(self.vocabulary_size)[None])[0]
        self.stem.tables = CodeVectors(vectors, width=self.transformer.width)
