"""Residual quantization: values by hand, prefixes, a beam, and a shared codebook that learns once."""

import itertools

import numpy as np
import pytest
import torch

from vq.quantizers import (
    BottleneckQuantizer,
    CosineDistance,
    EMACodebook,
    FiniteScalarQuantizer,
    LearnedCodebook,
    LookupFreeQuantizer,
    NormalInit,
    ResidualQuantizer,
    RotationTrick,
    VectorQuantizer,
    codebook_warmup,
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
        rest = rest - codes[index]  # all stages search among the codes before the update
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


def test_scales_make_residual_lfq_a_binary_expansion():
    depth = 6
    stage = LookupFreeQuantizer(bits=3, entropy_weight=0.0, commitment_weight=1.0)
    quantizer = ResidualQuantizer(quantizers=[stage], depth=depth, scales=[2.0**-k for k in range(depth)])
    z = torch.rand(200, 3) * 4 - 2
    out = quantizer.eval()(z)
    assert (out.quantized - z).abs().max() <= 2.0 ** (1 - depth)
    errors = [(z - quantizer.decode_prefix(out.indices, d)).abs().max() for d in range(1, depth + 1)]
    assert all(error <= 2.0 ** (1 - d) + 1e-6 for d, error in enumerate(errors, start=1))
    # Each stage's loss is the squared difference of z and the running sum, in the units of z.
    expected = sum((z - quantizer.decode_prefix(out.indices, d)).square().mean() for d in range(1, depth + 1))
    torch.testing.assert_close(out.loss, expected / depth)
    assert torch.equal(quantizer.decode(quantizer.encode(z)), out.quantized)


def test_prefixes_in_training_are_whole_examples_and_evenly_drawn():
    stages = [learned(), learned(), learned()]
    quantizer = ResidualQuantizer(quantizers=stages, prefix_rate=1.0).train()
    z = torch.randn(600, 5, 4)
    out = quantizer(z)
    prefixes = torch.stack([quantizer.decode_prefix(out.indices, d) for d in (1, 2, 3)])
    is_prefix = (prefixes == out.quantized).flatten(2).all(dim=2)
    assert (is_prefix.sum(0) == 1).all(), "an example is not one prefix in all its positions"
    assert ((is_prefix.float().mean(1) - 1 / 3).abs() < 0.07).all()
    # Loss and indices are those of all stages.
    quantizer.prefix_rate = 0.0
    uncut = quantizer(z)
    assert torch.equal(uncut.indices, out.indices)
    assert torch.equal(uncut.loss, out.loss)
    quantizer.prefix_rate = 0.4
    share_cut = (quantizer(z).quantized != uncut.quantized).flatten(1).any(1).float().mean()
    assert share_cut == pytest.approx(0.4 * 2 / 3, abs=0.07)
    quantizer.eval()
    assert torch.equal(quantizer(z).quantized, quantizer.decode(quantizer.encode(z)))
    assert quantizer.train()(torch.randn(4)).quantized.shape == (4,)


def beam_of_one_vector(x, books, width):
    """Multi-path encoding: after each stage the `width` partial sums that are nearest to x are kept."""
    sums = [((), np.zeros_like(x))]
    for book in books:
        longer = [((*path, k), total + code) for path, total in sums for k, code in enumerate(book)]
        sums = sorted(longer, key=lambda each: ((x - each[1]) ** 2).sum())[:width]
    return sums[0]


@pytest.mark.parametrize("scales", [None, [1.0, 0.5, 0.25]])
@pytest.mark.parametrize("width", [2, 3, 16])
def test_a_beam_equals_multi_path_encoding(width, scales):
    torch.manual_seed(0)
    stages = [learned(8), learned(8), learned(8)]
    quantizer = ResidualQuantizer(quantizers=stages, scales=scales, beam_width=width).double()
    z = torch.randn(40, 4, dtype=torch.float64, requires_grad=True)
    out = quantizer(z)
    weights = [stage.codebook.weight for stage in stages]
    books = [w.detach().numpy() * s for w, s in zip(weights, scales or [1, 1, 1], strict=True)]
    found = [beam_of_one_vector(x, books, width) for x in z.detach().numpy()]
    assert out.indices.tolist() == [list(path) for path, _ in found]
    np.testing.assert_allclose(out.quantized.detach(), [total for _, total in found], atol=1e-12)
    assert torch.equal(quantizer.encode(z), out.indices)
    # The loss compares z with the running sums of these codes, and moves them and z.
    total, expected = torch.zeros_like(z), 0.0
    for k, (weight, scale) in enumerate(zip(weights, scales or [1, 1, 1], strict=True)):
        code = weight[out.indices[:, k]] * scale
        moved = (z.detach() - total.detach() - code).square().mean()
        expected += (moved + 0.25 * (z - (total + code).detach()).square().mean()) / 3
        total = total + code
    torch.testing.assert_close(out.loss, expected)
    for a, b in zip(
        torch.autograd.grad(out.loss, [z, *weights], retain_graph=True),
        torch.autograd.grad(expected, [z, *weights]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    (through,) = torch.autograd.grad(out.quantized.square().sum() / 2, z)
    assert torch.equal(through, out.quantized)


def test_a_beam_as_wide_as_all_sums_finds_the_nearest_sum_and_a_narrow_one_is_between():
    torch.manual_seed(0)
    stages = [learned(6), learned(6), learned(6)]
    z = torch.randn(200, 4)
    errors = [
        (z - ResidualQuantizer(quantizers=stages, beam_width=width).eval()(z).quantized).square().sum(1)
        for width in (1, 4, 36)
    ]
    books = [stage.codebook.weight.detach() for stage in stages]
    every = torch.stack([sum(codes) for codes in itertools.product(*books)])
    torch.testing.assert_close(errors[2], torch.cdist(z, every).square().amin(1), atol=1e-5, rtol=1e-5)
    assert errors[2].mean() <= errors[1].mean() < 0.95 * errors[0].mean()


def test_codebooks_of_a_beam_learn_from_the_vectors_that_it_gave_them():
    torch.manual_seed(0)
    stages = [
        VectorQuantizer(codebook=EMACodebook(size=8, dim=2, init=NormalInit(), decay=0.9)) for _ in range(2)
    ]
    quantizer = ResidualQuantizer(quantizers=stages, beam_width=4)
    codes = [stage.codebook.vectors.clone() for stage in stages]
    z = torch.randn(100, 2)
    out = quantizer.train()(z)
    rest = z
    for k, stage in enumerate(stages):
        index = out.indices[:, k]
        counts = torch.bincount(index, minlength=8)
        torch.testing.assert_close(stage.codebook.usage, 0.9 + 0.1 * counts)
        totals = torch.zeros(8, 2).index_add_(0, index, rest)
        torch.testing.assert_close(stage.codebook.sums, 0.9 * codes[k] + 0.1 * totals)
        rest = rest - codes[k][index]


def test_k_means_of_every_stage_of_a_beam_sees_the_rest_of_the_stage_before():
    torch.manual_seed(0)
    make = lambda **options: ResidualQuantizer(  # noqa: E731
        quantizers=[VectorQuantizer(codebook=EMACodebook(size=32, dim=4)) for _ in range(3)], **options
    )
    z = torch.randn(512, 4)
    errors = {}
    for width in (1, 8):
        quantizer = make(beam_width=width)
        for _ in range(10):
            out = quantizer(z)
        errors[width] = (z - out.quantized).square().mean()
    assert errors[8] < 0.9 * errors[1]


def test_the_stages_of_a_beam_are_warmed_up():
    torch.manual_seed(0)
    stages = [VectorQuantizer(codebook=LearnedCodebook(size=16, dim=4)) for _ in range(2)]
    quantizer = ResidualQuantizer(quantizers=stages, beam_width=4)
    z = torch.randn(512, 4)
    codebook_warmup(quantizer, [z], num_batches=1)
    greedy = ResidualQuantizer(quantizers=stages)
    errors = [(z - each.eval()(z).quantized).square().mean() for each in (quantizer, greedy)]
    assert errors[0] < errors[1] < 0.3


def test_a_beam_that_cannot_work_is_refused():
    with pytest.raises(
        ValueError, match="expected a beam_width of 1, or of more for at least two stages, got 2 for 1"
    ):
        ResidualQuantizer(quantizers=[learned()], beam_width=2)
    with pytest.raises(ValueError, match=r"expected a beam_width of 1, or of more .* got 0"):
        ResidualQuantizer(quantizers=[learned()], depth=2, beam_width=0)
    with pytest.raises(
        ValueError, match="EuclideanDistance for a beam_width of 4, got FiniteScalarQuantizer"
    ):
        ResidualQuantizer(quantizers=[FiniteScalarQuantizer(levels=[5, 5])], depth=2, beam_width=4)
    cosine = VectorQuantizer(codebook=LearnedCodebook.example(), distance=CosineDistance())
    with pytest.raises(ValueError, match="got VectorQuantizer with CosineDistance; leave the beam out"):
        ResidualQuantizer(quantizers=[cosine], depth=2, beam_width=4)


def test_invalid_arguments_raise():
    for scales in ([1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="expected a positive scale for each of 2 stages"):
            ResidualQuantizer(quantizers=[learned()], depth=2, scales=scales)
    with pytest.raises(ValueError, match=r"expected a prefix_rate in \[0, 1\], got 1.5"):
        ResidualQuantizer(quantizers=[learned()], prefix_rate=1.5)
    with pytest.raises(ValueError, match="expected one quantizer shared by depth"):
        ResidualQuantizer(quantizers=[])
    with pytest.raises(ValueError, match="expected stages of one codebook_size"):
        ResidualQuantizer(quantizers=[learned(16), learned(8)])
    quantizer = ResidualQuantizer(quantizers=[FiniteScalarQuantizer(levels=[5, 5])], depth=2)
    with pytest.raises(ValueError, match="expected a depth in"):
        quantizer.decode_prefix(torch.zeros(1, 2, dtype=torch.int64), 3)


@pytest.mark.parametrize(
    "make",
    [
        BottleneckQuantizer.example,
        lambda: VectorQuantizer(codebook=LearnedCodebook.example(), estimator=RotationTrick()),
    ],
)
def test_one_stage_that_needs_the_gradient_of_the_task_gets_it(make):
    stage = make().double()
    whole = ResidualQuantizer(quantizers=[stage])
    z = torch.randn(5, stage.codebook_dim, dtype=torch.float64, requires_grad=True)
    inputs = [z, *stage.parameters()]
    expected = torch.autograd.grad(stage(z).quantized.square().sum(), inputs, allow_unused=True)
    found = torch.autograd.grad(whole(z).quantized.square().sum(), inputs, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_stages_in_a_shared_bottleneck_follow_the_chain_rule():
    stage = BottleneckQuantizer(quantizer=learned(dim=4), dim=3).double().eval()
    quantizer = ResidualQuantizer(quantizers=[stage], depth=3).eval()
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(quantizer(z).quantized.sum(), [z, *stage.project_out.parameters()])
    # Inside a stage the gradient is straight-through, so its Jacobian is the product of its two linear maps.
    jacobian = stage.project_out.weight @ stage.project_in.weight
    rest = torch.eye(3, dtype=torch.float64) - jacobian
    whole = torch.eye(3, dtype=torch.float64) - torch.linalg.matrix_power(rest, 3)
    torch.testing.assert_close(found[0], (torch.ones(3, dtype=torch.float64) @ whole).expand(5, 3))
    assert all(gradient.abs().sum() > 0 for gradient in found[1:])
    assert torch.equal(quantizer.decode(quantizer.encode(z), z.dtype), quantizer(z).quantized)
