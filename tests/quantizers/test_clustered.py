"""CVQ-VAE: recorded values of the pull, the anchors, micro-batches and masks."""

import numpy as np
import pytest
import torch

from vq.ops.affinity import closest_vector, draw_by_affinity, log_affinity
from vq.quantizers import (
    ClusteredCodebook,
    CosineDistance,
    EntropyRegulariser,
    NormalInit,
    VectorQuantizer,
    accumulate,
)
from vq.quantizers.codebooks.anchors import draw_anchors, merge_anchors

KINDS = ["closest", "probrandom", "random"]


def everything(z):
    return torch.ones(len(z), dtype=torch.bool)


class TestPull:
    def test_golden_values(self):
        book = ClusteredCodebook(size=8, dim=2)
        book.usage.copy_(torch.tensor([0, 1, 0.5, 0.1, 1e-3, 1e-2, 2, 4]) / 8)
        expected = np.exp(-np.array([0, 1, 0.5, 0.1, 1e-3, 1e-2, 2, 4]) * 1000 - 1e-3)
        np.testing.assert_allclose(book.pull(), expected, rtol=1e-4, atol=1e-30)

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_step_is_the_equation(self, kind):
        book = ClusteredCodebook(size=8, dim=2, anchor=kind, init=NormalInit(), decay=0.9)
        quantizer, before = VectorQuantizer(codebook=book), book.weight.detach().double().numpy().copy()
        book.usage.copy_(torch.tensor([0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.2, 0.3, 0.4]))
        usage = book.usage.double().numpy()
        z = torch.randn(30, 2)
        torch.manual_seed(3)
        anchors = draw_anchors(kind, z, everything(z), book.weight.detach()).vectors.double().numpy()
        torch.manual_seed(3)
        out = quantizer(z)
        share = np.bincount(out.indices, minlength=8) / 30
        usage = 0.9 * usage + 0.1 * share
        a = np.exp(-usage * 8 * 10 / (1 - 0.9) - 1e-3)
        np.testing.assert_allclose(book.usage, usage, atol=1e-7)
        np.testing.assert_allclose(
            book.weight.detach(), (1 - a[:, None]) * before + a[:, None] * anchors, atol=1e-6
        )

    def test_codes_of_mean_use_do_not_move_and_dead_ones_jump(self):
        book = ClusteredCodebook(size=4, dim=2, init=NormalInit())
        before = book.weight.detach().clone()
        book.usage.copy_(torch.tensor([0.25, 0.25, 0.5, 0.0]))
        z = torch.cat([before[:3], torch.full((3, 2), 9.0)])
        book.update(z, torch.tensor([0, 1, 2, 0, 1, 2]), everything(z))
        assert torch.equal(book.weight[:3], before[:3])
        nearest = z[torch.cdist(before[3:], z).argmin()]
        torch.testing.assert_close(book.weight[3], (1 - np.exp(-1e-3)) * before[3] + np.exp(-1e-3) * nearest)


class TestAnchors:
    def test_closest_is_the_argmax_of_similarity(self):
        z, codes = torch.randn(50, 3), torch.randn(20, 3)
        mask = torch.rand(50) < 0.5
        z[~mask] = torch.nan
        anchors = draw_anchors("closest", z, mask, codes)
        expected = torch.cdist(codes, z[mask]).argmin(1)
        assert torch.equal(anchors.vectors, z[mask][expected])
        nearness, rows = closest_vector(z, mask, codes)
        assert mask[rows].all()
        torch.testing.assert_close(nearness, -torch.cdist(codes, z[mask]).amin(1).square())

    def test_the_affinity_is_that_of_numpy(self):
        z, codes, mask = torch.randn(50, 3), torch.randn(20, 3), torch.rand(50) < 0.6
        z[~mask] = torch.inf
        x, e = z[mask].double().numpy(), codes.double().numpy()
        expected = np.log(np.exp(-((e[:, None] - x) ** 2).sum(-1)).sum(1))
        np.testing.assert_allclose(log_affinity(z, mask, codes), expected, rtol=1e-5, atol=1e-5)

    def test_the_draw_inverts_the_cumulative_distribution(self):
        z, codes, mask = torch.randn(40, 3), torch.randn(6, 3), torch.rand(40) < 0.6
        x, rows = z[mask].double().numpy(), np.flatnonzero(mask)
        p = np.exp(-((codes.double().numpy()[:, None] - x) ** 2).sum(-1))
        p /= p.sum(1, keepdims=True)
        for u in (0.0, 0.123, 0.5, 0.999):
            expected = [rows[np.searchsorted(np.cumsum(row), u, side="right")] for row in p]
            drawn = draw_by_affinity(z, mask, codes, torch.full((6,), u))
            np.testing.assert_array_equal(drawn, expected)

    @pytest.mark.parametrize(("kind", "share"), [("probrandom", 1 / (1 + np.exp(-1))), ("random", 0.5)])
    def test_random_ones_have_the_stated_distribution(self, kind, share):
        # Two vectors at squared distances 1 and 2 from the code.
        z = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        anchors = draw_anchors(kind, z, everything(z), torch.zeros(40_000, 2))
        drawn_first = (anchors.vectors[:, 1] == 0).float().mean()
        assert drawn_first == pytest.approx(share, abs=0.03)

    @pytest.mark.parametrize("kind", ["probrandom", "random"])
    def test_merged_draws_have_the_distribution_of_one_batch(self, kind):
        z, codes = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.5, 0.0]]), torch.zeros(60_000, 2)
        parts = [draw_anchors(kind, part, everything(part), codes) for part in (z[:2], z[2:])]
        merged, whole = merge_anchors(kind, *parts), draw_anchors(kind, z, everything(z), codes)
        torch.testing.assert_close(merged.weight, whole.weight)
        for vector in z:
            shares = [(a.vectors == vector).all(1).float().mean().item() for a in (merged, whole)]
            assert shares[0] == pytest.approx(shares[1], abs=0.03)

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_vector_is_no_anchor(self, kind):
        codes = torch.randn(5, 3)
        for z, mask in ((torch.zeros(0, 3), torch.zeros(0, dtype=torch.bool)), (codes, torch.zeros(5) > 0)):
            anchors = draw_anchors(kind, z, mask, codes)
            assert anchors.weight.isneginf().all()
            assert (anchors.vectors == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_almost_all_codes_come_into_use(kind):
    book = ClusteredCodebook(size=64, dim=4, anchor=kind)
    quantizer = VectorQuantizer(codebook=book)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    for _ in range(60):
        z = torch.randn(512, 4) + 3
        out = quantizer(z)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert len(out.indices.unique()) > 40
    assert book.weight.isfinite().all()


def test_accumulated_micro_batches_find_the_closest_anchors_of_all():
    books = []
    z = torch.randn(60, 2)
    for parts in ([60], [7, 20, 33]):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(codebook=ClusteredCodebook(size=16, dim=2, init=NormalInit()))
        *first, last = torch.split(z, parts)
        with accumulate(quantizer):
            for part in first:
                quantizer(part)
        quantizer(last)
        books.append(quantizer.codebook)
    torch.testing.assert_close(books[0].weight, books[1].weight)
    torch.testing.assert_close(books[0].usage, books[1].usage)


def test_the_gradient_is_that_of_the_codes_that_were_searched():
    for kwargs in ({}, {"distance": CosineDistance()}, {"regularisers": [EntropyRegulariser()]}):
        torch.manual_seed(0)
        book = ClusteredCodebook(size=8, dim=3, init=NormalInit())
        quantizer, z = VectorQuantizer(codebook=book, **kwargs), torch.randn(20, 3)
        before = book.weight.detach().clone()
        quantizer(z).loss.backward()
        assert not torch.equal(book.weight, before)
        moved_gradient = book.weight.grad.clone()
        with torch.no_grad():
            book.weight.copy_(before)
        book.weight.grad = None
        quantizer.eval()(z).loss.backward()
        torch.testing.assert_close(moved_gradient, book.weight.grad)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match=r"ClusteredCodebook: expected a decay in \[0, 1\), got 1"):
        ClusteredCodebook(size=4, dim=2, decay=1.0)
    with pytest.raises(
        ValueError, match="expected an anchor out of closest, probrandom, random, got 'nearest'"
    ):
        ClusteredCodebook(size=4, dim=2, anchor="nearest")
