"""VectorQuantizer: how its parts work together."""

import numpy as np
import pytest
import torch

from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    EntropyRegulariser,
    LearnedCodebook,
    NormalInit,
    RotationTrick,
    StraightThrough,
    Synchronised,
    UniformInit,
    VectorQuantizer,
)


def made(**kwargs):
    torch.manual_seed(0)
    return VectorQuantizer(codebook=LearnedCodebook(size=32, dim=4, init=NormalInit()), **kwargs)


def test_straight_through_hands_the_gradient_over_unchanged():
    quantizer, z, g = made(), torch.randn(9, 4, requires_grad=True), torch.randn(9, 4)
    quantizer(z).quantized.backward(g)
    assert torch.equal(z.grad, g)
    assert quantizer.codebook.weight.grad is None


def test_rotation_is_the_papers_matrix():
    quantizer, g = made(estimator=RotationTrick()), torch.randn(9, 4)
    z = torch.randn(9, 4, requires_grad=True)
    out = quantizer(z)
    out.quantized.backward(g)
    for x, q, upstream, grad in zip(
        z.detach().double().numpy(), out.quantized.detach().double().numpy(), g.numpy(), z.grad, strict=True
    ):
        x_unit, q_unit = x / np.linalg.norm(x), q / np.linalg.norm(q)
        r = (x_unit + q_unit) / np.linalg.norm(x_unit + q_unit)
        rotation = np.eye(4) - 2 * np.outer(r, r) + 2 * np.outer(q_unit, x_unit)
        rotation *= np.linalg.norm(q) / np.linalg.norm(x)
        np.testing.assert_allclose(rotation @ x, q, atol=1e-6)
        np.testing.assert_allclose(grad, rotation.T @ upstream, atol=1e-5)


def test_synchronised_changes_no_value_and_the_codes_gradient_grows_with_nu():
    grads = {}
    z = torch.randn(9, 4)
    for nu in (0.0, 0.5, 1.0):
        quantizer = made(estimator=Synchronised(nu=nu))
        out = quantizer(z)
        assert torch.equal(out.quantized, made()(z).quantized)
        out.quantized.square().sum().backward()
        grads[nu] = quantizer.codebook.weight.grad
    assert grads[0.0].abs().sum() == 0
    torch.testing.assert_close(grads[1.0], 2 * grads[0.5])


def test_estimators_are_values_that_compare_and_print():
    assert StraightThrough() == StraightThrough()
    assert repr(Synchronised(nu=2.0)) == "Synchronised(nu=2.0)"


@pytest.mark.parametrize("kind", [LearnedCodebook, EMACodebook])
def test_cosine_ignores_lengths_and_gives_unit_codes(kind):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        codebook=kind(size=32, dim=4, init=NormalInit()), distance=CosineDistance()
    ).eval()
    z = torch.randn(50, 4)
    assert torch.equal(quantizer.encode(z), quantizer.encode(z * torch.rand(50, 1).add(0.1)))
    torch.testing.assert_close(quantizer(z).quantized.norm(dim=-1), torch.ones(50))
    similarity = torch.cosine_similarity(z[:, None], quantizer.codebook.vectors[None], dim=-1)
    assert torch.equal(quantizer.encode(z), similarity.argmax(1))


def test_tiny_uniform_codes_are_told_apart():
    # If |z|^2 were part of the distance, float32 would select a wrong code for about one vector in ten here.
    torch.manual_seed(0)
    book = LearnedCodebook(size=8192, dim=8, init=UniformInit())
    z = torch.randn(64, 8)
    exact = torch.cdist(z.double(), book.weight.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(
        1
    )
    assert torch.equal(VectorQuantizer(codebook=book).encode(z), exact)


def test_codes_are_searched_in_float64_for_float64_input():
    quantizer = made()
    z = torch.randn(100, 4, dtype=torch.float64)
    exact = torch.cdist(z, quantizer.codebook.weight.double()).argmin(1)
    assert torch.equal(quantizer(z).indices, exact)


def test_a_regulariser_adds_to_the_loss_and_to_what_is_logged():
    torch.manual_seed(0)
    codebook = LearnedCodebook(size=16, dim=4, init=NormalInit())
    z = torch.randn(32, 4)
    plain = VectorQuantizer(codebook=codebook).eval()(z)
    regulariser = EntropyRegulariser(weight=0.3)
    extended = VectorQuantizer(codebook=codebook, regularisers=[regulariser]).eval()(z)
    term, _ = regulariser(z, codebook.vectors, plain.indices, across_ranks=False)
    torch.testing.assert_close(extended.loss, plain.loss + term)
    assert set(extended.metrics) > set(plain.metrics)
