"""Codes chosen by direction: the choice does not depend on lengths, the losses do."""

import numpy as np
import torch

from vq.quantizers import (
    CosineDistance,
    DirectionDistance,
    EMACodebook,
    LearnedCodebook,
    NormalInit,
    VectorQuantizer,
)


def test_codes_are_chosen_by_the_largest_cosine():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        codebook=LearnedCodebook(size=32, dim=4, init=NormalInit()), distance=DirectionDistance()
    )
    z = torch.randn(200, 4)
    e, x = quantizer.codebook.weight.detach().double().numpy(), z.double().numpy()
    cosine = x @ e.T / np.linalg.norm(e, axis=1)
    assert np.array_equal(quantizer.encode(z), cosine.argmax(1))
    assert not np.array_equal(quantizer.encode(z), ((x[:, None] - e) ** 2).sum(-1).argmin(1))


def test_the_length_of_z_changes_no_index_and_the_codes_keep_theirs():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        codebook=LearnedCodebook(size=32, dim=4, init=NormalInit(std=3.0)), distance=DirectionDistance()
    )
    z = torch.randn(200, 4)
    indices = quantizer.encode(z)
    assert torch.equal(quantizer.encode(z * torch.logspace(-3, 3, 200)[:, None]), indices)
    quantizer.eval()
    assert torch.equal(quantizer(z).quantized, quantizer.codebook.weight[indices])


def test_a_code_learns_the_length_of_its_vectors_with_their_direction():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        codebook=EMACodebook(size=2, dim=2, decay=0.5, init=NormalInit()), distance=DirectionDistance()
    )
    quantizer.codebook.begin(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2))
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
    for _ in range(20):
        lengths = torch.rand(100, 1) * 2 + torch.tensor([[4.0], [7.0]]).repeat(50, 1)
        quantizer(directions * lengths)
    lengths = quantizer.codebook.weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([5.0, 8.0]), atol=0.2, rtol=0)


def test_codes_and_vectors_of_length_zero_are_no_nan():
    quantizer = VectorQuantizer(codebook=LearnedCodebook(size=4, dim=2), distance=DirectionDistance())
    with torch.no_grad():
        quantizer.codebook.weight[1] = 0
    z = torch.zeros(3, 2, requires_grad=True)
    out = quantizer(z)
    (out.loss + out.quantized.sum()).backward()
    assert out.loss.isfinite()
    assert z.grad.isfinite().all()


def test_below_eps_the_gradient_of_the_cosine_distance_fades():
    """There the factor of the gradient is length / eps^2, above it 1 / length."""
    distance, across = CosineDistance(eps=0.5), torch.tensor([[0.0, 1.0]])
    for length, factor in ((0.125, 0.5), (2.0, 0.5)):
        x = torch.tensor([[length, 0.0]], requires_grad=True)
        (distance.place(x) * across).sum().backward()
        assert x.grad.tolist() == [[0.0, factor]]
