"""SimVQ: the codes are a linear map of fixed coefficients, and all of them learn."""

import numpy as np
import torch

from vq.quantizers import KMeansInit, LearnedCodebook, NormalInit, ProjectedCodebook, VectorQuantizer


def test_the_gradient_of_the_map_is_that_of_numpy():
    torch.manual_seed(0)
    book = ProjectedCodebook(size=8, dim=3)
    torch.nn.init.normal_(book.weight), torch.nn.init.normal_(book.bias)
    z = torch.randn(20, 3)
    out = VectorQuantizer(codebook=book)(z)
    out.loss.backward()
    c, w, b = (t.detach().double().numpy() for t in (book.coefficients, book.weight, book.bias))
    x, e = z.double().numpy(), c @ w.T + b
    indices = ((x[:, None] - e) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(out.indices, indices)
    slope = 2 * (e[indices] - x) / x.size
    np.testing.assert_allclose(book.weight.grad, slope.T @ c[indices], atol=1e-6)
    np.testing.assert_allclose(book.bias.grad, slope.sum(0), atol=1e-6)
    np.testing.assert_allclose(out.loss.item(), 1.25 * ((e[indices] - x) ** 2).mean(), rtol=1e-5)


def test_it_begins_as_its_coefficients_which_never_learn():
    torch.manual_seed(0)
    book = ProjectedCodebook.example()
    assert torch.equal(book.vectors, book.coefficients)
    assert {name for name, _ in book.named_parameters()} == {"weight", "bias"}


def test_one_step_moves_the_codes_that_no_vector_chose():
    torch.manual_seed(0)
    book = ProjectedCodebook(size=32, dim=4)
    before = book.vectors.detach().clone()
    out = VectorQuantizer(codebook=book)(torch.randn(3, 4) + 4)
    out.loss.backward()
    torch.optim.SGD(book.parameters(), lr=0.1).step()
    assert len(out.indices.unique()) <= 3
    assert ((book.vectors - before).abs().sum(1) > 0).all()


def test_codes_follow_drifting_vectors_where_codes_that_learn_alone_are_left_behind():
    used = []
    for book in (ProjectedCodebook(size=64, dim=4), LearnedCodebook(size=64, dim=4, init=NormalInit())):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(codebook=book)
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
        for step in range(300):
            optimizer.zero_grad()
            out = quantizer(torch.randn(512, 4) / 2 + step / 100)
            out.loss.backward()
            optimizer.step()
        used.append(len(out.indices.unique()))
    assert used[0] > 40
    assert used[1] < 25


def test_codes_are_computed_once_a_forward(monkeypatch):
    calls = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *a: calls.append(1) or linear(*a))
    quantizer = VectorQuantizer(codebook=ProjectedCodebook.example())
    out = quantizer(torch.randn(5, 4))
    assert len(calls) == 1
    quantizer.decode(out.indices)
    assert len(calls) == 2


def test_an_init_from_data_sets_coefficients_once():
    torch.manual_seed(0)
    book = ProjectedCodebook(size=4, dim=2, init=KMeansInit())
    quantizer, z = VectorQuantizer(codebook=book), torch.randn(4, 2)
    assert torch.equal(quantizer(z).quantized, z)
    fitted = book.coefficients.clone()
    quantizer(z + 9)
    assert torch.equal(book.coefficients, fitted)
