"""Affine reparameterisation: the codes, their gradients, and updates from averages and revival."""

import numpy as np
import pytest
import torch

from vq.quantizers import (
    AffineCodebook,
    ClusteredCodebook,
    EMACodebook,
    KMeansInit,
    LearnedCodebook,
    NormalInit,
    ReplaceDeadCodes,
    VectorQuantizer,
)

ALL = torch.ones(40, dtype=torch.bool)


def made(*, groups=2, rate=3.0, **kwargs):
    torch.manual_seed(0)
    book = AffineCodebook(
        codebook=LearnedCodebook(size=8, dim=3, init=NormalInit(), **kwargs), groups=groups, rate=rate
    )
    return book


def shaken(book):
    with torch.no_grad():
        book.scale.normal_(std=0.1), book.shift.normal_(std=0.1)
    return book


def test_it_begins_as_the_codes_inside():
    book = made()
    assert torch.equal(book.vectors, book.codebook.vectors)


def test_the_codes_are_the_formula_with_a_scale_and_shift_for_each_group():
    book = shaken(made(groups=4))
    e, s, b = (t.detach().double().numpy() for t in (book.codebook.weight, book.scale, book.shift))
    group = np.arange(8) // 2
    np.testing.assert_allclose(book.vectors.detach(), (1 + 3 * s[group]) * e + 3 * b[group], atol=1e-6)


def test_the_gradients_are_those_of_numpy_and_linear_in_the_rate():
    for rate in (1.0, 4.0):
        book = made(rate=rate)
        z = torch.randn(40, 3)
        out = VectorQuantizer(codebook=book)(z)
        out.loss.backward()
        e, x, k = book.vectors.detach().double().numpy(), z.double().numpy(), out.indices.numpy()
        slope = 2 * (e[k] - x) / x.size
        inside, group = np.zeros((8, 3)), np.arange(8) // 4
        np.add.at(inside, k, slope)
        np.testing.assert_allclose(book.codebook.weight.grad, inside, atol=1e-6)
        scale, shift = np.zeros((2, 3)), np.zeros((2, 3))
        np.add.at(scale, group[k], slope * e[k])
        np.add.at(shift, group[k], slope)
        np.testing.assert_allclose(book.scale.grad, rate * scale, atol=1e-5)
        np.testing.assert_allclose(book.shift.grad, rate * shift, atol=1e-5)


def test_averages_are_taken_before_scale_and_shift():
    torch.manual_seed(0)
    inner = EMACodebook(size=8, dim=3, decay=0.0, eps=1e-9, init=NormalInit())
    book = shaken(AffineCodebook(codebook=inner, groups=2))
    z = torch.randn(40, 3)
    out = VectorQuantizer(codebook=book)(z)
    # With decay 0 each chosen code, scaled and shifted, is the mean of its vectors.
    for k in out.indices.unique():
        torch.testing.assert_close(
            book.vectors[k].detach(), z[out.indices == k].mean(0), atol=1e-5, rtol=1e-4
        )
    out.loss.backward()
    assert book.scale.grad.abs().sum() > 0


def test_one_step_moves_the_codes_that_no_vector_chose():
    book = made(groups=1)
    before = book.vectors.detach().clone()
    VectorQuantizer(codebook=book)(torch.randn(2, 3) + 4).loss.backward()
    torch.optim.SGD([book.scale, book.shift], lr=0.1).step()
    assert ((book.vectors - before).abs().sum(1) > 0).all()


def test_revived_codes_land_on_vectors_and_the_others_stay_to_the_bit():
    book = shaken(made(revival=ReplaceDeadCodes()))
    before = book.vectors.detach().clone()
    book.codebook.usage.copy_(torch.tensor([9.0, 0, 9, 9, 9, 9, 0, 9]))
    z = torch.randn(40, 3) + 5
    book.prepare(z, ALL)
    after = book.vectors.detach()
    is_dead = torch.tensor([0, 1, 0, 0, 0, 0, 1, 0]).bool()
    assert torch.equal(after[~is_dead], before[~is_dead])
    assert torch.cdist(after[is_dead], z).min(1).values.max() < 1e-4


def test_it_initialises_from_data_once_also_after_loading():
    books = [
        AffineCodebook(codebook=EMACodebook(size=4, dim=2, decay=0.5, init=KMeansInit())) for _ in range(2)
    ]
    books[0].prepare(torch.randn(40, 2), ALL)
    books[1].load_state_dict(books[0].state_dict())
    books[1].prepare(torch.randn(40, 2) + 9, ALL)
    assert torch.equal(books[0].vectors, books[1].vectors)
    assert books[1].codebook.initialised == 1


def test_a_scale_of_zero_is_no_infinity():
    book = made(groups=1, rate=1.0)
    with torch.no_grad():
        book.scale.fill_(-1)
    book.begin(torch.randn(8, 3), torch.ones(8))
    assert book.codebook.weight.isfinite().all()


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_must_divide_the_codes(groups):
    with pytest.raises(
        ValueError, match=f"AffineCodebook: expected groups that divide the 8 codes, got {groups}"
    ):
        made(groups=groups)


@pytest.mark.parametrize("kind", [ClusteredCodebook, AffineCodebook])
def test_a_codebook_that_moves_by_itself_is_refused(kind):
    with pytest.raises(ValueError, match=f"not clustered or affine itself, got {kind.__name__}; use Learned"):
        AffineCodebook(codebook=kind.example())
