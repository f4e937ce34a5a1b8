"""QINCo against its formula in float64: search over all codes, sums, losses and gradients."""

import pytest
import torch
from torch.nn import functional as F

from vq.quantizers import (
    EMACodebook,
    ImplicitResidualQuantizer,
    KMeansInit,
    LearnedCodebook,
    NormalInit,
    ReplaceDeadCodes,
    ResidualQuantizer,
    VectorQuantizer,
)


def make(stages: int = 3, size: int = 20, **options) -> ImplicitResidualQuantizer:
    torch.manual_seed(0)
    codebooks = [LearnedCodebook(size=size, dim=4, init=NormalInit()) for _ in range(stages)]
    quantizer = ImplicitResidualQuantizer(codebooks=codebooks, hidden_dim=8, num_blocks=2, **options)
    with torch.no_grad():  # networks that change the codes clearly
        for parameter in quantizer.networks.parameters():
            parameter.normal_(std=0.5)
    return quantizer


def published(network, code, total):
    """The step of QINCo for pairs of a base code and a sum: concatenation block, then residual blocks."""
    x = code + F.linear(torch.cat([code, total], dim=-1), network.join.weight, network.join.bias)
    for block in network.blocks:
        x = x + block.narrow(F.relu(block.widen(x)))
    return x


def test_equals_the_published_formula_with_its_gradients():
    quantizer = make(commitment_weight=0.3).double()
    z = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    out = quantizer(z)
    total, expected = torch.zeros_like(z), 0.0
    for k, codebook in enumerate(quantizer.codebooks):
        every = codebook.weight.expand(50, 20, 4)
        if k:
            every = published(quantizer.networks[k - 1], every, total[:, None].expand(50, 20, 4))
        index = (z[:, None] - (total[:, None] + every)).square().sum(dim=2).argmin(dim=1)
        assert torch.equal(out.indices[:, k], index)
        total = total + every[torch.arange(50), index]
        expected += ((z.detach() - total).square().mean() + 0.3 * (z - total.detach()).square().mean()) / 3
        torch.testing.assert_close(quantizer.decode_prefix(out.indices, k + 1), total.detach())
    torch.testing.assert_close(out.quantized, total)
    torch.testing.assert_close(out.loss, expected)
    inputs = [z, *quantizer.parameters()]
    for a, b in zip(
        torch.autograd.grad(out.loss, inputs, retain_graph=True),
        torch.autograd.grad(expected, inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    g = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(out.quantized, z, g)[0], g)


@pytest.mark.parametrize("tile", [1, 7, 100])
def test_the_tile_does_not_change_the_result(tile, monkeypatch):
    quantizer, z = make().eval(), torch.randn(50, 4)
    expected = quantizer.encode(z)
    monkeypatch.setattr("vq.quantizers.implicit_residual.CODES_PER_TILE", tile)
    assert torch.equal(quantizer.encode(z), expected)


def test_one_stage_is_vq():
    quantizer = make(stages=1)
    plain = VectorQuantizer(codebook=quantizer.codebooks[0])
    z = torch.randn(9, 4)
    assert torch.equal(quantizer(z).indices[:, 0], plain(z).indices)
    assert torch.equal(quantizer(z).loss, plain(z).loss)
    assert not list(quantizer.networks.parameters())


def test_it_begins_close_to_residual_vq_with_codes_from_k_means():
    z = torch.randn(512, 4)
    torch.manual_seed(0)
    books = [LearnedCodebook(size=32, dim=4, init=KMeansInit()) for _ in range(3)]
    implicit = ImplicitResidualQuantizer(codebooks=books, hidden_dim=32, num_blocks=2)
    torch.manual_seed(0)
    books = [LearnedCodebook(size=32, dim=4, init=KMeansInit()) for _ in range(3)]
    plain = ResidualQuantizer(quantizers=[VectorQuantizer(codebook=book) for book in books])
    errors = [(z - quantizer(z).quantized).square().mean() for quantizer in (implicit, plain)]
    assert errors[0] < 1.3 * errors[1]


def test_codes_that_depend_on_the_sum_beat_fixed_ones_where_residuals_do():
    """Two clusters, one four times as wide as the other: fixed codes of the residual cannot serve both."""
    torch.manual_seed(0)
    side = torch.randint(2, (256,))
    sign = torch.randint(2, (256,)) * 2.0 - 1
    z = torch.stack([12.0 * side - 6, sign * (0.5 + 1.5 * side)], dim=1)
    errors = []
    for implicit in (True, False):
        books = [LearnedCodebook(size=2, dim=2, init=KMeansInit()) for _ in range(2)]
        if implicit:
            quantizer = ImplicitResidualQuantizer(codebooks=books, hidden_dim=16, num_blocks=1)
        else:
            quantizer = ResidualQuantizer(quantizers=[VectorQuantizer(codebook=book) for book in books])
        quantizer(z)
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            quantizer(z).loss.backward()
            optimizer.step()
        errors.append((z - quantizer.eval()(z).quantized).square().mean().item())
    assert errors[0] < 0.3 * errors[1]


def test_revival_places_base_codes_at_residuals():
    torch.manual_seed(0)
    books = [
        LearnedCodebook(
            size=64, dim=4, init=NormalInit(std=50.0), revival=ReplaceDeadCodes(), usage_decay=0.5
        )
        for _ in range(2)
    ]
    quantizer = ImplicitResidualQuantizer(codebooks=books, hidden_dim=8, num_blocks=1)
    z = torch.randn(512, 4)
    used = [quantizer(z).indices[:, 1].unique().numel() for _ in range(20)]
    assert used[0] < 10
    assert used[-1] > 20


def test_codebooks_that_cannot_be_used_are_refused():
    with pytest.raises(
        ValueError, match=r"expected at least one codebook, all of one size and dim, got .* \[\]"
    ):
        ImplicitResidualQuantizer(codebooks=[])
    with pytest.raises(
        ValueError, match=r"all of one size and dim, got \(size, dim\) \[\(8, 4\), \(8, 5\)\]"
    ):
        ImplicitResidualQuantizer(codebooks=[LearnedCodebook(size=8, dim=dim) for dim in (4, 5)])
    with pytest.raises(ValueError, match="codebooks that learn by gradient, got EMACodebook"):
        ImplicitResidualQuantizer(codebooks=[EMACodebook.example()])
    with pytest.raises(ValueError, match="expected positive hidden_dim and num_blocks, got 0 and 4"):
        ImplicitResidualQuantizer(codebooks=[LearnedCodebook.example()], hidden_dim=0)
    with pytest.raises(ValueError, match=r"expected a depth in \[1, 3\], got 4"):
        make().decode_prefix(torch.zeros(1, 3, dtype=torch.int64), 4)
