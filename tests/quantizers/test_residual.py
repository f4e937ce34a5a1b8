"""Residual quantization: hand values, prefixes, and a shared codebook that learns once."""

import pytest
import torch

from vq.quantizers import (
    EMACodebook,
    FiniteScalarQuantizer,
    LearnedCodebook,
    NormalInit,
    ResidualQuantizer,
    VectorQuantizer,
)


def learned(size=16, dim=4):
    return VectorQuantizer(codebook=LearnedCodebook(size=size, dim=dim, init=NormalInit()))


def test_indices_and_sum_equal_the_greedy_search():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(quantizers=[learned(), learned(), learned()]).eval()
    z = torch.randn(50, 4)
    out = quantizer(z)
    rest = z.double()
    for k, stage in enumerate(quantizer.stages):
        codes = stage.codebook.vectors.detach().double()
        nearest = torch.cdist(rest, codes).argmin(1)
        assert torch.equal(out.indices[:, k], nearest)
        rest = rest - codes[nearest]
    torch.testing.assert_close(out.quantized, (z.double() - rest).float(), atol=1e-5, rtol=1e-5)


def test_the_loss_compares_the_running_sum_with_z():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(quantizers=[learned(), learned()]).eval()
    z = torch.randn(20, 4, requires_grad=True)
    out = quantizer(z)
    expected = 0.0
    for depth in (1, 2):
        partial = quantizer.decode_prefix(out.indices, depth).detach()
        expected += 1.25 * (z.detach() - partial).square().mean() / 2
    torch.testing.assert_close(out.loss.detach(), expected)
    (gradient,) = torch.autograd.grad(out.loss, z)
    by_hand = sum(
        0.25 * 2 * (z.detach() - quantizer.decode_prefix(out.indices, d).detach()) / z.numel() / 2
        for d in (1, 2)
    )
    torch.testing.assert_close(gradient, by_hand)


def test_depth_1_is_the_quantizer_itself():
    torch.manual_seed(0)
    stage = learned()
    z = torch.randn(9, 4)
    deep, plain = ResidualQuantizer(quantizers=[stage]).eval()(z), stage.eval()(z)
    assert torch.equal(deep.quantized, plain.quantized)
    assert torch.equal(deep.indices[..., 0], plain.indices)
    torch.testing.assert_close(deep.loss, plain.loss)


def test_a_shared_codebook_learns_once_from_all_stages():
    torch.manual_seed(0)
    shared = VectorQuantizer(codebook=EMACodebook(size=8, dim=2, init=NormalInit(), decay=0.9))
    quantizer = ResidualQuantizer(quantizers=[shared], depth=3)
    assert sum(p.numel() for p in quantizer.parameters()) == 0
    codes, usage, sums = (
        t.clone() for t in (shared.codebook.vectors, shared.codebook.usage, shared.codebook.sums)
    )
    z = torch.randn(100, 2)
    out = quantizer.train()(z)
    counts, totals, rest = torch.zeros(8), torch.zeros(8, 2), z
    for k in range(3):
        index = out.indices[:, k]
        counts += torch.bincount(index, minlength=8)
        totals.index_add_(0, index, rest)
        rest = rest - codes[index]  # all stages searched in the codes from before the update
    torch.testing.assert_close(shared.codebook.usage, 0.9 * usage + 0.1 * counts)
    torch.testing.assert_close(shared.codebook.sums, 0.9 * sums + 0.1 * totals, atol=1e-5, rtol=1e-5)


def test_more_stages_leave_less_over():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(
        quantizers=[VectorQuantizer(codebook=EMACodebook(size=32, dim=4)) for _ in range(4)]
    )
    z = torch.randn(512, 4)
    for _ in range(30):
        out = quantizer(z)
    errors = [(z - quantizer.decode_prefix(out.indices, d)).square().mean().item() for d in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.25 * errors[0]


def test_what_is_refused():
    with pytest.raises(ValueError, match="expected one quantizer to share over depth"):
        ResidualQuantizer(quantizers=[])
    with pytest.raises(ValueError, match="expected stages of one codebook_size"):
        ResidualQuantizer(quantizers=[learned(16), learned(8)])
    quantizer = ResidualQuantizer(quantizers=[FiniteScalarQuantizer(levels=[5, 5])], depth=2)
    with pytest.raises(ValueError, match="expected a depth in"):
        quantizer.decode_prefix(torch.zeros(1, 2, dtype=torch.int64), 3)
