"""The generator of `configs/compare/token_forms.py`, whose input is the vectors of the codes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from experiment_parts import imported
from torch import nn

from vq.generators import DecoderTransformer
from vq.quantizers import FiniteScalarQuantizer, VectorQuantizer
from vq.registry import GENERATORS

SIZES = {"vocabulary_size": 16, "num_classes": 3, "grid": (2, 3)}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], Any]:
    """Builds the generator of a quantizer."""
    kind = imported("benchmarks.code_vectors", GENERATORS, monkeypatch).CodeVectorGenerator

    def made(quantizer: nn.Module) -> Any:
        transformer = DecoderTransformer(width=16, depth=1, num_heads=2)
        return kind(quantizer=quantizer, transformer=transformer, **SIZES).double().eval()

    return made


def test_equals_a_generator_whose_embeddings_are_that_function_of_the_codes(
    make: Callable[[nn.Module], Any],
) -> None:
    quantizer = FiniteScalarQuantizer(levels=[4, 4])
    generator = make(quantizer)
    codes = quantizer.decode(torch.arange(16)[None])[0].double()
    assert torch.equal(generator.stem.tables.vectors, codes)
    plain = copy.deepcopy(generator)
    plain.stem.tables = nn.Embedding.from_pretrained(generator.stem.tables.project(codes))
    indices, label = torch.randint(16, (4, 2, 3)), torch.tensor([0, 1, 2, 0])
    # In float64, where products of other numbers of rows differ by rounding only.
    torch.testing.assert_close(
        generator(indices, label).loss, plain(indices, label).loss, rtol=1e-12, atol=1e-12
    )
    drawn = generator.generate(label, seeds=torch.arange(4))
    assert drawn.shape == (4, 2, 3)


def test_refuses_a_quantizer_with_weights(make: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(ValueError, match="expected a quantizer without weights"):
        make(VectorQuantizer.example())
