"""The two terms of `configs/compare/gumbel.py` that are not in the library."""

import math
from typing import Any

import pytest
import torch
from experiment_parts import imported
from torch import Tensor

from vq.quantizers import GumbelQuantizer
from vq.registry import QUANTIZERS


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("benchmarks.gumbel_terms", QUANTIZERS, monkeypatch)


def loss_and_indices(quantizer: GumbelQuantizer, z: Tensor) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        quantizer.to_logits.weight.copy_(torch.randn(8, 4).double())
    torch.manual_seed(2)
    out = quantizer(z)
    return out.loss, out.indices


def test_a_minus_rewards_what_a_plus_punishes(terms: Any) -> None:
    z = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.manual_seed(0)
    minus = terms.GumbelWithMinus(minus_kl_weight=0.5, size=8, dim=4).double()
    torch.manual_seed(0)
    plus = GumbelQuantizer(kl_weight=0.5, size=8, dim=4).double()
    assert loss_and_indices(minus, z)[0] == -loss_and_indices(plus, z)[0]


def test_the_cross_entropy_is_that_of_the_drawn_codes(terms: Any) -> None:
    z = torch.randn(2, 5, 4, dtype=torch.float64)
    quantizer = terms.GumbelWithCrossEntropy(cross_entropy_weight=2.0, kl_weight=0.0, size=8, dim=4).double()
    loss, indices = loss_and_indices(quantizer, z)
    logits = z @ quantizer.to_logits.weight.T + quantizer.to_logits.bias
    expected = [
        math.log(sum(math.exp(x) for x in row)) - row[index]
        for row, index in zip(logits.flatten(0, 1).tolist(), indices.flatten().tolist(), strict=True)
    ]
    torch.testing.assert_close(
        loss, torch.tensor(2.0 * sum(expected) / len(expected), dtype=torch.float64), atol=1e-12, rtol=1e-12
    )
