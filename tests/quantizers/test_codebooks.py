"""Codebooks: the paper's equations in float64 NumPy, and the known pitfalls of moving averages."""

import numpy as np
import pytest
import torch

from vq.quantizers import (
    Codebook,
    CosineDistance,
    EMACodebook,
    KMeansInit,
    LearnedCodebook,
    NormalInit,
    ReplaceDeadCodes,
    UniformInit,
    VectorQuantizer,
    accumulate,
)

ALL = torch.ones(32, dtype=torch.bool)


def ema_reference(weight, usage, sums, z, *, decay, eps):
    """One step of eq. 6 to 8 of VQ-VAE, with the smoothed counts."""
    indices = ((z[:, None] - weight) ** 2).sum(-1).argmin(1)
    one_hot = np.eye(len(weight))[indices]
    usage = decay * usage + (1 - decay) * one_hot.sum(0)
    sums = decay * sums + (1 - decay) * one_hot.T @ z
    total = usage.sum()
    smoothed = (usage + eps) / (total + len(weight) * eps) * total
    return sums / smoothed[:, None], usage, sums


def test_ema_follows_the_equations_for_five_steps():
    torch.manual_seed(0)
    book = EMACodebook(size=8, dim=3, decay=0.9, eps=1e-3, init=NormalInit())
    quantizer = VectorQuantizer(codebook=book)
    weight, usage = book.weight.double().numpy().copy(), np.ones(8)
    sums = weight.copy()
    for _ in range(5):
        z = torch.randn(40, 3)
        quantizer(z)
        weight, usage, sums = ema_reference(weight, usage, sums, z.double().numpy(), decay=0.9, eps=1e-3)
    np.testing.assert_allclose(book.weight, weight, atol=1e-5)
    np.testing.assert_allclose(book.usage, usage, atol=1e-5)
    np.testing.assert_allclose(book.sums, sums, atol=1e-5)


@pytest.mark.parametrize("init", [UniformInit(), NormalInit(), KMeansInit()])
def test_the_first_ema_step_throws_no_code_away(init):
    torch.manual_seed(0)
    book = EMACodebook(size=64, dim=8, init=init)
    quantizer = VectorQuantizer(codebook=book)
    z = torch.randn(256, 8)
    if book.init.needs_data:
        quantizer(z)
    before = book.weight.clone()
    is_unused = torch.bincount(quantizer(z).indices, minlength=64) == 0
    torch.testing.assert_close(book.weight[is_unused], before[is_unused], rtol=1e-3, atol=0)
    longest = max(before.norm(dim=1).max(), z.norm(dim=1).max())
    assert book.weight.norm(dim=1).max() <= 1.01 * longest


def test_the_search_uses_the_codebook_from_before_the_update():
    torch.manual_seed(0)
    book = EMACodebook(size=8, dim=3, decay=0.0, init=NormalInit())
    quantizer, old = VectorQuantizer(codebook=book), book.weight.clone()
    out = quantizer(torch.randn(40, 3))
    assert torch.equal(out.quantized, old[out.indices])
    assert not torch.equal(book.weight, old)


def test_an_ema_codebook_has_no_parameters_and_no_loss_of_its_own():
    quantizer = VectorQuantizer(codebook=EMACodebook.example(), commitment_weight=0.5)
    assert not list(quantizer.parameters())
    out = quantizer(torch.randn(10, 4))
    assert out.metrics["codebook_loss"] == 0
    torch.testing.assert_close(out.loss, 0.5 * out.metrics["commitment_loss"])


def test_the_learned_codebooks_gradient_is_that_of_the_mean_square():
    torch.manual_seed(0)
    book = LearnedCodebook(size=8, dim=3, init=NormalInit())
    quantizer, z = VectorQuantizer(codebook=book), torch.randn(20, 3)
    out = quantizer(z)
    out.loss.backward()
    e, x, indices = book.weight.detach().double().numpy(), z.double().numpy(), out.indices.numpy()
    expected = np.zeros((8, 3))
    np.add.at(expected, indices, 2 * (e[indices] - x) / x.size)
    np.testing.assert_allclose(book.weight.grad, expected, atol=1e-7)
    difference = ((e[indices] - x) ** 2).mean()
    np.testing.assert_allclose(out.loss.item(), 1.25 * difference, rtol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_of_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"EMACodebook: expected a decay in \[0, 1\), got"):
        EMACodebook(size=4, dim=2, decay=decay)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="LearnedCodebook: expected positive size and dim, got 0 and 2"):
        LearnedCodebook(size=0, dim=2)


class TestKMeans:
    def test_lowers_the_error_and_is_decided_by_the_seed(self):
        books = []
        z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) + 3
        for _ in range(2):
            torch.manual_seed(1)
            books.append(LearnedCodebook(size=16, dim=4, init=KMeansInit()))
            books[-1].prepare(z, torch.ones(500, dtype=torch.bool))
        assert torch.equal(books[0].weight, books[1].weight)
        random = VectorQuantizer(codebook=LearnedCodebook(size=16, dim=4, init=NormalInit())).eval()(z)
        fitted = VectorQuantizer(codebook=books[0]).eval()(z)
        assert fitted.loss < random.loss / 10

    def test_happens_in_the_first_training_forward_and_never_again(self):
        torch.manual_seed(0)
        book = LearnedCodebook(size=4, dim=2, init=KMeansInit())
        quantizer = VectorQuantizer(codebook=book)
        drawn = book.weight.detach().clone()
        quantizer.eval()(torch.randn(32, 2))
        assert torch.equal(book.weight, drawn)
        assert book.initialised == 0
        first = quantizer.train()(torch.randn(32, 2))
        fitted = book.weight.detach().clone()
        assert torch.equal(first.quantized, fitted[first.indices]), "quantized by the old codes"
        assert not torch.equal(fitted, drawn)
        quantizer(torch.randn(32, 2) + 10)
        assert torch.equal(book.weight, fitted)

    def test_a_resumed_codebook_is_not_clustered_again(self):
        torch.manual_seed(0)
        trained = VectorQuantizer(codebook=EMACodebook(size=4, dim=2, decay=0.5))
        trained(torch.randn(32, 2))
        resumed = VectorQuantizer(codebook=EMACodebook(size=4, dim=2, decay=0.5))
        resumed.load_state_dict(trained.state_dict())
        z = torch.randn(32, 2) + 5
        trained(z), resumed(z)
        assert torch.equal(trained.codebook.weight, resumed.codebook.weight)

    def test_an_uninitialised_checkpoint_is_clustered_after_loading(self):
        fresh = VectorQuantizer(codebook=EMACodebook(size=4, dim=2))
        other = VectorQuantizer(codebook=EMACodebook(size=4, dim=2))
        other(torch.randn(32, 2))
        other.load_state_dict(fresh.state_dict())
        other(torch.randn(32, 2) + 50)
        assert other.codebook.weight.mean() > 40

    def test_fewer_vectors_than_codes_become_codes_and_noisy_copies(self):
        torch.manual_seed(0)
        book = LearnedCodebook(size=10, dim=2, init=KMeansInit())
        z = torch.randn(6, 2)
        out = VectorQuantizer(codebook=book)(z)
        assert torch.equal(out.quantized, z)
        assert len(book.weight.detach().unique(dim=0)) == 10
        assert torch.cdist(book.weight.detach(), z).min(dim=1).values.max() < 0.1

    def test_equal_vectors_are_no_trouble(self):
        book = LearnedCodebook(size=3, dim=2, init=KMeansInit())
        out = VectorQuantizer(codebook=book)(torch.ones(20, 2))
        assert torch.equal(out.quantized, torch.ones(20, 2))

    def test_of_a_large_batch_only_some_vectors_are_used_but_usage_counts_all(self):
        torch.manual_seed(0)
        book = EMACodebook(size=4, dim=2, decay=0.0, init=KMeansInit(max_vectors=50))
        book.prepare(torch.randn(400, 2), torch.ones(400, dtype=torch.bool))
        torch.testing.assert_close(book.usage.sum(), torch.tensor(400.0))

    def test_no_vector_at_all_is_refused(self):
        quantizer = VectorQuantizer(codebook=EMACodebook(size=4, dim=2))
        with pytest.raises(ValueError, match="KMeansInit: expected at least one finite, unmasked vector"):
            quantizer(torch.full((3, 2), torch.nan))


class TestRevival:
    def quantizer(self, kind, **kwargs):
        book = kind(size=64, dim=4, init=NormalInit(std=0.01), revival=ReplaceDeadCodes(), **kwargs)
        return VectorQuantizer(codebook=book)

    @pytest.mark.parametrize("kind", [EMACodebook, LearnedCodebook])
    def test_dead_codes_become_vectors_of_the_batch_and_are_used(self, kind):
        torch.manual_seed(0)
        quantizer, z = self.quantizer(kind), torch.randn(2048, 4) + 5
        used_before = len(quantizer(z).indices.unique())
        for _ in range(30):
            out = quantizer(z)
        assert used_before <= 4
        assert len(out.indices.unique()) > 55

    def test_a_replaced_ema_code_stays_where_it_was_put(self):
        book = EMACodebook(size=4, dim=2, init=NormalInit(), revival=ReplaceDeadCodes(threshold=0.5))
        book.usage.copy_(torch.tensor([10.0, 10.0, 10.0, 0.0]))
        book.prepare(torch.full((8, 2), 7.0), torch.ones(8, dtype=torch.bool))
        assert torch.equal(book.weight[3], torch.tensor([7.0, 7.0]))
        assert book.usage[3] == 0.5 * 7.5
        nobody = torch.zeros(8, dtype=torch.int64)
        book.update(torch.zeros(8, 2), nobody, torch.ones(8, dtype=torch.bool))
        torch.testing.assert_close(book.weight[3], torch.tensor([7.0, 7.0]), rtol=1e-4, atol=1e-4)

    def test_used_codes_do_not_move(self):
        torch.manual_seed(0)
        book = LearnedCodebook(size=4, dim=2, revival=ReplaceDeadCodes())
        before = book.weight.detach().clone()
        book.usage.copy_(torch.tensor([10.0, 0.0, 5.0, 8.0]))
        book.prepare(torch.randn(32, 2), ALL)
        assert (book.weight != before).any(dim=1).tolist() == [False, True, False, False]

    def test_the_gradient_is_right_although_the_forward_moved_codes(self):
        torch.manual_seed(0)
        book = LearnedCodebook(size=8, dim=2, init=NormalInit(), revival=ReplaceDeadCodes())
        quantizer = VectorQuantizer(codebook=book, distance=CosineDistance())
        book.usage[:4] = 0
        quantizer(torch.randn(32, 2)).loss.backward()
        assert book.weight.grad.isfinite().all()

    def test_inside_accumulate_only_the_first_micro_batch_revives(self):
        torch.manual_seed(0)
        quantizer = self.quantizer(LearnedCodebook)
        quantizer.codebook.usage[1:] = 0
        with accumulate(quantizer):
            quantizer(torch.randn(32, 4))
            after_first = quantizer.codebook.weight.detach().clone()
            quantizer(torch.randn(32, 4))
        assert torch.equal(quantizer.codebook.weight, after_first)

    @pytest.mark.parametrize("threshold", [0.0, 1.0])
    def test_a_threshold_outside_of_its_range_is_refused(self, threshold):
        with pytest.raises(ValueError, match=r"ReplaceDeadCodes: expected a threshold in \(0, 1\)"):
            ReplaceDeadCodes(threshold=threshold)


def test_accumulate_restores_and_nests():
    quantizer = VectorQuantizer(codebook=EMACodebook.example())
    z = torch.randn(3, 4)
    before = quantizer.codebook.weight.clone()
    with accumulate(quantizer):
        with accumulate(quantizer):
            quantizer(z)
        quantizer(z)
        assert torch.equal(quantizer.codebook.weight, before)
    quantizer(z)
    assert not torch.equal(quantizer.codebook.weight, before)
    assert quantizer.codebook.usage.sum() == pytest.approx(16 * 0.99 + 9 * 0.01)


class Unsettable(Codebook):
    """Keeps codes, and implements neither `set_codes` nor `average_usage`."""

    @property
    def vectors(self):
        return torch.zeros(self.size, self.dim)

    def loss(self, z, code, mask=None):
        return z.new_zeros(())

    @classmethod
    def example(cls):
        return cls(size=4, dim=2, init=NormalInit(), revival=None)


def test_a_codebook_without_the_hooks_names_what_is_missing():
    everything = torch.ones(9, dtype=torch.bool)
    initialised = Unsettable(size=4, dim=2, init=KMeansInit(), revival=None)
    with pytest.raises(NotImplementedError, match=r"Unsettable: expected set_codes\(\) to initialise codes"):
        initialised.prepare(torch.randn(9, 2), everything)
    revived = Unsettable(size=4, dim=2, init=NormalInit(), revival=ReplaceDeadCodes())
    with pytest.raises(NotImplementedError, match=r"Unsettable: expected average_usage\(\) for a revival"):
        revived.prepare(torch.randn(9, 2), everything)
