"""Activation checkpointing changes neither values nor gradients nor state of any quantizer."""

import copy
from collections.abc import Callable

import pytest
import torch
from quantizer_cases import CASES, vectors
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vq.quantizers import (
    AffineCodebook,
    ClusteredCodebook,
    EMACodebook,
    EntropyRegulariser,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    ProductQuantizer,
    Quantizer,
    ReplaceUnusedCodes,
    ResidualQuantizer,
    VectorQuantizer,
    accumulate,
)
from vq.quantizers.recomputation import MOST_RECORDS, _records

ENTROPY = [EntropyRegulariser(temperature=1.0)]
COMPOSED: dict[str, Callable[[], Quantizer]] = CASES | {
    "residual-revival-entropy-prefixes": lambda: ResidualQuantizer(
        quantizers=[
            VectorQuantizer(
                codebook=EMACodebook(size=16, dim=4, decay=0.5, revival=ReplaceUnusedCodes(patience=1)),
                regularisers=ENTROPY,
            )
        ],
        depth=3,
        prefix_rate=0.5,
    ),
    "multi-scale-affine-learned-revival": lambda: MultiScaleResidualQuantizer(
        quantizer=VectorQuantizer(
            codebook=AffineCodebook(
                codebook=LearnedCodebook(
                    size=16, dim=4, init=NormalInit(), revival=ReplaceUnusedCodes(patience=1)
                )
            ),
            regularisers=ENTROPY,
        ),
        scales=[1, 2],
    ),
    "product-clustered-random": lambda: ProductQuantizer(
        quantizers=[
            VectorQuantizer(codebook=ClusteredCodebook(size=16, dim=2, anchor="random"), regularisers=ENTROPY)
            for _ in range(2)
        ]
    ),
}


def run(quantizer: Quantizer, z: Tensor, use_reentrant: bool | None) -> tuple[Tensor, Tensor]:
    """A quantizer between two layers that draw random numbers."""

    def block(z: Tensor) -> tuple[Tensor, Tensor]:
        out = quantizer(nn.functional.dropout(z, 0.3))
        return nn.functional.dropout(out.quantized, 0.3), out.loss

    quantized, loss = block(z) if use_reentrant is None else checkpoint(block, z, use_reentrant=use_reentrant)
    return quantized, loss


def train(
    quantizer: Quantizer, batches: list[Tensor], use_reentrant: bool | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Runs two forwards before one backward, then two micro-batches; returns outputs and state, and gradients."""
    torch.manual_seed(1)
    seen: list[Tensor] = []
    leaves = [batch.clone().requires_grad_() for batch in batches]
    first, second = (run(quantizer, leaf, use_reentrant) for leaf in leaves[:2])
    (first[0].square().sum() + first[1] + 2 * second[0].square().sum() + 2 * second[1]).backward()
    seen += [*first, *second]
    with accumulate(quantizer):
        quantized, loss = run(quantizer, leaves[2], use_reentrant)
        (quantized.square().sum() + loss).backward()
    seen += [quantized, loss, torch.rand(3)]
    quantized, loss = run(quantizer, leaves[3], use_reentrant)
    (quantized.square().sum() + loss).backward()
    seen += [quantized, loss, torch.rand(3), *quantizer.state_dict().values()]
    learnt = [*leaves, *quantizer.parameters()]
    return seen, [torch.zeros(0) if tensor.grad is None else tensor.grad for tensor in learnt]


@pytest.mark.parametrize("name", sorted(COMPOSED))
def test_the_recomputation_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    made = COMPOSED[name]()
    made.double()
    batches = [vectors(made, 24, dtype=torch.float64) for _ in range(4)]
    expected, expected_gradients = train(copy.deepcopy(made), batches, None)
    for use_reentrant in (False, True):
        seen, gradients = train(copy.deepcopy(made), batches, use_reentrant)
        for value, wanted in zip(seen, expected, strict=True):
            assert torch.equal(value, wanted)
        # The gradients of several forwards are added in a different order.
        torch.testing.assert_close(gradients, expected_gradients, atol=1e-12, rtol=1e-12)


def test_a_forward_inside_a_backward_that_repeats_none_is_refused() -> None:
    quantizer = VectorQuantizer.example()
    quantizer_of_averages = VectorQuantizer(codebook=EMACodebook.example())
    z = torch.randn(3, 4, requires_grad=True)
    z.register_hook(lambda gradient: quantizer_of_averages(gradient).quantized)
    before = {name: value.clone() for name, value in quantizer_of_averages.state_dict().items()}
    with pytest.raises(
        RuntimeError, match=r"expected a training forward inside of a backward to repeat an earlier"
    ):
        quantizer(z).loss.backward()
    for name, value in quantizer_of_averages.state_dict().items():
        assert torch.equal(value, before[name])
    quantizer_of_averages.eval()
    quantizer(z).loss.backward()


def test_nothing_is_kept_without_checkpointing_and_little_with() -> None:
    quantizer = VectorQuantizer(codebook=EMACodebook.example())
    z = torch.randn(8, 4, requires_grad=True)
    quantizer(z)
    assert quantizer not in _records
    for _ in range(MOST_RECORDS + 3):
        with torch.no_grad():
            quantizer(z)
    assert len(_records[quantizer]) == MOST_RECORDS
    for _ in range(3):
        quantized, loss = run(quantizer, z, use_reentrant=True)
        (quantized.sum() + loss).backward()
    assert sum(record.is_repeated for record in _records[quantizer]) <= 1
