"""Codebooks that cluster frozen features: their equations in float64 NumPy, and what a checkpoint keeps."""

import io

import numpy as np
import pytest
import torch

from vq.quantizers import (
    AffineCodebook,
    ClusteredCodebook,
    Codebook,
    CosineDistance,
    EMACodebook,
    EuclideanDistance,
    KMeansInit,
    MiniBatchKMeansCodebook,
    NormalInit,
    ReplaceDeadCodes,
    ReplaceUnusedCodes,
    SphericalEMACodebook,
    VectorQuantizer,
    accumulate,
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nearest(z, codes):
    return ((z[:, None] - codes) ** 2).sum(-1).argmin(1)


class TestMiniBatchKMeans:
    def test_it_follows_the_algorithm_for_five_steps(self):
        quantizer = VectorQuantizer(
            codebook=MiniBatchKMeansCodebook(size=8, dim=3, init=NormalInit())
        ).double()
        codes, counts = quantizer.codebook.weight.numpy().copy(), np.zeros(8)
        for _ in range(5):
            z = torch.randn(40, 3, dtype=torch.float64)
            indices = quantizer(z).indices
            np.testing.assert_array_equal(indices, nearest(z.numpy(), codes))
            # Algorithm 1 of Sculley 2010: one vector after the other, with the assignments of the whole batch.
            for vector, k in zip(z.numpy(), indices, strict=True):
                counts[k] += 1
                codes[k] = (1 - 1 / counts[k]) * codes[k] + vector / counts[k]
        np.testing.assert_allclose(quantizer.codebook.weight, codes, atol=1e-13)
        np.testing.assert_array_equal(quantizer.codebook.counts, counts)

    def test_with_cosine_distance_a_code_is_the_direction_of_the_mean(self):
        book = MiniBatchKMeansCodebook(size=4, dim=3, init=NormalInit())
        quantizer = VectorQuantizer(codebook=book, distance=CosineDistance()).double()
        sums = np.zeros((4, 3))
        for scale in (1.0, 50.0):  # lengths do not matter
            z = torch.randn(60, 3, dtype=torch.float64) * scale
            np.add.at(sums, quantizer(z).indices.numpy(), unit(z.numpy()))
        used = book.counts > 0
        out = quantizer.eval().decode(torch.arange(4))
        np.testing.assert_allclose(out[used], unit(sums[used]), atol=1e-12)

    def test_the_first_clusters_count_as_their_vectors(self):
        quantizer = VectorQuantizer(
            codebook=MiniBatchKMeansCodebook(size=4, dim=2, init=KMeansInit(steps=50))
        )
        z = torch.randn(300, 2)
        first = quantizer(z)
        counts = torch.bincount(first.indices, minlength=4)
        assert torch.equal(quantizer.codebook.counts, 2 * counts)
        # k-means has converged, so counting the same vectors once more changes no mean.
        torch.testing.assert_close(
            quantizer.codebook.weight[first.indices], first.quantized, atol=1e-5, rtol=0
        )

    def test_a_revived_code_counts_as_its_usage_and_then_follows_its_vectors(self):
        book = MiniBatchKMeansCodebook(
            size=3, dim=1, init=NormalInit(), revival=ReplaceUnusedCodes(patience=1), usage_decay=0.5
        )
        with torch.no_grad():
            book.weight.copy_(torch.tensor([[0.0], [10.0], [999.0]]))
        quantizer = VectorQuantizer(codebook=book)
        z = torch.tensor([[-1.0], [1.0], [9.0], [11.0]])
        quantizer(z)
        assert book.counts.tolist() == [2, 2, 0]
        assert book.weight[:, 0].tolist() == [0, 10, 999]
        # The third code moves to one of the vectors and counts as one. Of two equally near codes the lower one is
        # chosen, and the moved code takes only the vector that equals it, which then counts as the second.
        chosen = quantizer(z).indices
        assert (chosen == 2).sum() == 1
        assert book.weight[2] == z[chosen == 2]
        assert book.counts.tolist() == [*(2 + torch.bincount(chosen, minlength=3)[:2]).tolist(), 2]

    def test_a_count_beyond_float32_still_grows(self):
        book = MiniBatchKMeansCodebook(size=2, dim=1, init=NormalInit())
        book.counts.fill_(2**24)
        book.update(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool))
        assert book.counts.tolist() == [2**24 + 1, 2**24]

    def test_a_usage_decay_without_a_revival_is_refused(self):
        with pytest.raises(ValueError, match=r"expected no usage_decay without a revival, got 0\.9"):
            MiniBatchKMeansCodebook(size=2, dim=1, usage_decay=0.9)

    def test_an_affine_codebook_takes_it(self):
        book = AffineCodebook(codebook=MiniBatchKMeansCodebook(size=8, dim=2, revival=ReplaceDeadCodes()))
        VectorQuantizer(codebook=book)(torch.randn(50, 2))
        assert int(book.codebook.counts.sum()) == 100


class TestSphericalEMA:
    def test_it_follows_the_rule_of_vq_kd_for_five_steps(self):
        book = SphericalEMACodebook(size=8, dim=3, decay=0.9, init=NormalInit())
        quantizer = VectorQuantizer(codebook=book, distance=CosineDistance(), commitment_weight=1.0).double()
        codes = book.weight.numpy().copy()
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-7)
        for _ in range(5):
            z = torch.randn(6, 3, dtype=torch.float64) * 3 + 1  # fewer vectors than codes: some stay unused
            searched = book.weight.clone()
            out = quantizer(z)
            x = unit(z.numpy())
            k = (x @ codes.T).argmax(1)
            np.testing.assert_array_equal(out.indices, k)
            np.testing.assert_allclose(out.loss, ((x - unit(codes)[k]) ** 2).mean(), atol=1e-12)
            before = codes.copy()
            for code in np.unique(k):
                mean = unit(x[k == code].mean(0))
                codes[code] = unit(0.9 * before[code] + 0.1 * mean)
            is_unused = np.setdiff1d(np.arange(8), k)
            np.testing.assert_allclose(book.weight, codes, atol=1e-12)
            assert torch.equal(book.weight[is_unused], searched[is_unused])

    def test_an_ema_codebook_weighs_steps_by_their_vectors_and_this_one_does_not(self):
        # A code at 0 degrees is chosen by 99 vectors at 10 degrees, then by one at 80 degrees.
        def after(book):
            with torch.no_grad():
                book.set_codes(torch.eye(2), torch.ones(2), torch.ones(2, dtype=torch.bool))
            for angle, n in ((10.0, 99), (80.0, 1)):
                angles = torch.deg2rad(torch.tensor(angle, dtype=torch.float64)).expand(n)
                z = torch.stack([angles.cos(), angles.sin()], dim=1)
                book.update(z, torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.bool))
            return float(torch.rad2deg(torch.atan2(book.weight[0, 1], book.weight[0, 0])))

        ema = after(EMACodebook(size=2, dim=2, decay=0.5, init=NormalInit()).double())
        ours = after(SphericalEMACodebook(size=2, dim=2, decay=0.5, init=NormalInit()).double())
        assert ema == pytest.approx(12.0, abs=2)
        assert ours == pytest.approx(42.5, abs=0.1)  # halfway to 10, then halfway from 5 to 80

    @pytest.mark.parametrize("decay", [-0.1, 1.0])
    def test_a_decay_outside_of_its_range_is_refused(self, decay):
        with pytest.raises(ValueError, match=r"SphericalEMACodebook: expected a decay in \[0, 1\)"):
            SphericalEMACodebook(size=2, dim=2, decay=decay)


@pytest.mark.parametrize("make", [EMACodebook, SphericalEMACodebook, MiniBatchKMeansCodebook])
def test_a_resumed_training_does_not_cluster_again(make):
    """It continues with the codes of the checkpoint, bit for bit as if it had not been interrupted."""

    def quantizer():
        return VectorQuantizer(codebook=make(size=16, dim=4), distance=CosineDistance())

    batches = [torch.randn(100, 4) for _ in range(4)]
    unbroken, resumed, file = quantizer(), quantizer(), io.BytesIO()
    for z in batches[:2]:
        unbroken(z)
    torch.save(unbroken.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    loaded = resumed.codebook.weight.clone()
    for z in batches[2:]:
        unbroken(z)
        resumed(z)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert torch.nn.functional.cosine_similarity(loaded, resumed.codebook.weight).min() > 0.9


@pytest.mark.parametrize("make", [SphericalEMACodebook, MiniBatchKMeansCodebook])
def test_micro_batches_and_masked_vectors_are_one_batch(make):
    books = []
    z, mask = torch.randn(60, 3, dtype=torch.float64), torch.rand(60) < 0.7
    z[~mask] = torch.nan
    for parts in ([60], [7, 20, 33], None):
        torch.manual_seed(0)
        book: Codebook = make(size=16, dim=3, init=NormalInit())
        quantizer = VectorQuantizer(codebook=book, distance=CosineDistance()).double()
        if parts is None:
            quantizer(z[mask])
        else:
            *first, last = zip(torch.split(z, parts), torch.split(mask, parts), strict=True)
            with accumulate(quantizer):
                for part in first:
                    quantizer(*part)
            quantizer(*last)
        books.append(book.weight)
    torch.testing.assert_close(books[1], books[0])
    torch.testing.assert_close(books[2], books[0])


class TestGradientKMeans:
    """Cluster: z comes from a frozen encoder and has no gradient; the codebook learns by gradient."""

    @pytest.mark.parametrize("distance", [EuclideanDistance(), CosineDistance()], ids=["euclidean", "cosine"])
    def test_the_codebook_loss_alone_moves_the_codes(self, distance):
        book = ClusteredCodebook(size=8, dim=3, init=NormalInit())
        quantizer = VectorQuantizer(codebook=book, distance=distance, commitment_weight=0.0)
        book.usage.fill_(1 / 8)  # codes of average use are not pulled, so only the gradient acts
        z = torch.randn(40, 3)
        before = book.weight.detach().clone().requires_grad_()
        out = quantizer(z)
        out.loss.backward()
        placed, codes = distance.place(z), distance.place(before)
        (placed - codes[out.indices]).square().mean().backward()
        torch.testing.assert_close(book.weight.grad, before.grad)
        torch.testing.assert_close(out.loss, out.metrics["codebook_loss"])

    def test_it_finds_the_centres_of_clusters(self):
        centres = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
        book = ClusteredCodebook(size=4, dim=2, decay=0.9)
        quantizer = VectorQuantizer(codebook=book, commitment_weight=0.0)
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
        for _ in range(300):
            z = centres.repeat(16, 1) + torch.randn(64, 2) * 0.1
            optimizer.zero_grad()
            quantizer(z).loss.backward()
            optimizer.step()
        assert torch.cdist(centres, book.weight.detach()).amin(1).max() < 0.2
