"""Vectors and codes with a large common mean, or in distant clusters: float32 results equal those of float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

import vq.ops.distance
from vq.ops.affinity import closest_vector, draw_by_affinity, log_affinity
from vq.ops.backpropagation import choose_with_soft_gradient
from vq.ops.contrast import contrast
from vq.ops.distance import centred, largest_product, nearest_code
from vq.ops.entropy import distance_logits, softmax_sums
from vq.ops.kmeans import k_means
from vq.ops.two_samples import precision_and_recall
from vq.quantizers import (
    AffineCodebook,
    CosineDistance,
    EMACodebook,
    EntropyRegulariser,
    NormalInit,
    Quantizer,
    ResidualQuantizer,
    SoftmaxQuantizer,
    VectorQuantizer,
)

OFFSETS = [0.0, 1.0, 1e2, 1e3, 1e4, 1e5, 1e6]


def exact(z: Tensor, codes: Tensor) -> Tensor:
    """Returns the lowest index of the smallest distance, computed from differences in float64."""
    return torch.cdist(z.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def on_a_grid(*shape: int) -> Tensor:
    """Returns multiples of 1/4 in [-4, 4], which float32 represents exactly with a mean of up to 2^20."""
    return torch.randint(-16, 17, shape) / 4


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("size", "dim"), [(7, 1), (64, 8), (200, 8), (300, 64)])
def test_the_nearest_code_is_exact(offset: float, scale: float, size: int, dim: int) -> None:
    codes = (offset + torch.randn(size, dim)) * scale
    near = codes[torch.randint(size, (200,))] + 0.01 * scale * torch.randn(200, dim)
    between = (codes[:100] + codes[-100:]) / 2 if size >= 200 else codes
    for z in (near, codes, between, torch.randn(50, dim) * scale):
        assert torch.equal(nearest_code(z, codes), exact(z, codes))


@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_no_centre_serves_clusters_far_apart(far: float) -> None:
    side = torch.where(torch.arange(130) % 2 == 0, far, -far)[:, None]
    codes = side + torch.randn(130, 4)
    codes[7] = 1e7  # a code far away from all others
    z = codes[torch.randint(130, (300,))] + torch.randn(300, 4)
    assert torch.equal(nearest_code(z, codes), exact(z, codes))
    assert torch.equal(nearest_code(codes, codes), exact(codes, codes))


@pytest.mark.parametrize(("tile", "copies"), [((7, 64), 9), ((64, 128), 9), ((5, 3), 2), ((1024, 2048), 9)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_of_equal_codes_the_lowest_wins_whatever_the_tiles(
    tile: tuple[int, int], copies: int, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vq.ops.distance, "CPU_TILE", tile)
    codes = (offset + torch.randn(50, 6)).repeat(copies, 1)[torch.randperm(50 * copies)]
    z = torch.cat([codes, codes + 0.1 * torch.randn_like(codes)])
    assert torch.equal(nearest_code(z, codes), exact(z, codes))
    first = [(codes == code).all(1).nonzero()[0].item() for code in codes]
    assert nearest_code(codes, codes).tolist() == first


@pytest.mark.parametrize("offset", OFFSETS)
def test_the_largest_product_is_exact(offset: float) -> None:
    codes, z = offset + torch.randn(200, 8), torch.randn(300, 8)
    assert torch.equal(largest_product(z, codes), (z.double() @ codes.double().T).argmax(1))


def quantizers(offset: float) -> dict[str, Quantizer]:
    def book() -> EMACodebook:
        made = EMACodebook(size=64, dim=8, init=NormalInit())
        made.weight.copy_(offset + torch.randn(64, 8))
        return made

    affine = AffineCodebook(codebook=EMACodebook(size=64, dim=8, init=NormalInit(std=1.0)))
    with torch.no_grad():
        affine.shift.fill_(offset)
    soft = SoftmaxQuantizer(size=64, dim=8)
    with torch.no_grad():
        soft.codes.add_(offset)
    return {
        "averages": VectorQuantizer(codebook=book()),
        "affine": VectorQuantizer(codebook=affine),
        "cosine": VectorQuantizer(codebook=book(), distance=CosineDistance()),
        "softmax": soft,
    }


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("kind", ["averages", "affine", "cosine", "softmax"])
def test_encode_of_decode_is_the_index(kind: str, offset: float) -> None:
    quantizer = quantizers(offset)[kind].eval()
    codes = quantizer.decode(torch.arange(64))
    # Large means leave few digits; of codes that have become equal the lowest index is returned.
    assert torch.equal(quantizer.encode(codes), exact(codes, codes))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_residual_stages_are_exact(offset: float) -> None:
    books = [EMACodebook(size=32, dim=4, init=NormalInit()) for _ in range(2)]
    books[0].weight.copy_(offset + torch.randn(32, 4))
    books[1].weight.copy_(0.1 * torch.randn(32, 4))
    quantizer = ResidualQuantizer(quantizers=[VectorQuantizer(codebook=book) for book in books]).eval()
    z = offset + torch.randn(100, 4)
    found = quantizer.encode(z)
    first = exact(z, books[0].weight)
    assert torch.equal(found[:, 0], first)
    assert torch.equal(found[:, 1], exact(z - books[0].weight[first], books[1].weight))


@pytest.mark.parametrize("offset", [1e2, 1e4, 2.0**20])
def test_k_means_is_as_good_as_without_the_mean(offset: float) -> None:
    vectors = on_a_grid(500, 3)
    errors = []
    for shift in (0.0, offset):
        centres, counts = k_means(vectors + shift, 8, generator=torch.Generator().manual_seed(0))
        assert counts.sum() == 500
        distances = torch.cdist(
            (vectors + shift).double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        errors.append(distances.amin(1).square().mean().item())
    # A centre is rounded to float32 where it is, by half a unit in the last place in each of three channels.
    rounding = 3 * (float(np.spacing(np.float32(offset))) / 2) ** 2
    assert errors[1] <= 1.1 * errors[0] + rounding


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, 2.0**20])
class TestFormulasOfDifferences:
    """For numbers that float32 represents exactly with any of these means, the results do not depend on the mean."""

    @pytest.fixture
    def sets(self, offset: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, codes = on_a_grid(120, 4), on_a_grid(24, 4)
        return z, codes, z + offset, codes + offset

    def test_entropies_and_their_gradients(self, sets: tuple[Tensor, ...]) -> None:
        results = []
        for z, codes in ((sets[0].double(), sets[1].double()), sets[2:]):
            leaves = z.clone().requires_grad_(), codes.clone().requires_grad_()
            moved, moved_codes = centred(*leaves)
            scaled, bias = distance_logits(moved, moved_codes, 2.0)
            entropies, distribution = softmax_sums(scaled, moved_codes, bias, z.new_ones(len(z)))
            weight = torch.linspace(0, 1, len(codes), dtype=z.dtype)
            gradients = torch.autograd.grad(entropies + (distribution * weight).sum(), leaves)
            results.append([x.double() for x in (entropies, distribution, *gradients)])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)

    def test_the_regulariser(self, sets: tuple[Tensor, ...]) -> None:
        regulariser = EntropyRegulariser(temperature=2.0)
        nothing = torch.zeros(len(sets[0]), dtype=torch.int64)
        plain, moved = (
            regulariser(z, codes, nothing, across_ranks=False)[0] for z, codes in (sets[:2], sets[2:])
        )
        torch.testing.assert_close(moved, plain, rtol=1e-4, atol=1e-5)

    def test_contrast(self, sets: tuple[Tensor, ...]) -> None:
        counted = torch.ones(len(sets[0]), dtype=torch.bool)
        plain, moved = (contrast(z, codes, counted, 0.5) for z, codes in (sets[:2], sets[2:]))
        torch.testing.assert_close(moved, plain, rtol=1e-4, atol=1e-5)

    def test_anchors(self, sets: tuple[Tensor, ...]) -> None:
        counted = torch.arange(len(sets[0])) % 3 > 0
        uniform = torch.rand(len(sets[1]))
        for function, others in ((closest_vector, ()), (draw_by_affinity, (uniform,))):
            plain, moved = (function(z, counted, codes, *others) for z, codes in (sets[:2], sets[2:]))
            torch.testing.assert_close(moved, plain)
        plain, moved = (log_affinity(z, counted, codes) for z, codes in (sets[:2], sets[2:]))
        torch.testing.assert_close(moved, plain, rtol=1e-4, atol=1e-4)

    def test_the_soft_choice(self, sets: tuple[Tensor, ...]) -> None:
        """In products only the codes may have the mean; added to the vectors, it changes the scores."""
        gradients = []
        for codes in (sets[1].double(), sets[3]):
            z = sets[0].to(codes.dtype).requires_grad_()
            chosen = choose_with_soft_gradient(z, codes, largest_product(z, codes))
            gradients.append(torch.autograd.grad((chosen * torch.linspace(-1, 1, 4)).sum(), z)[0].double())
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)

    def test_precision_and_recall(self, sets: tuple[Tensor, ...]) -> None:
        assert precision_and_recall(sets[2], sets[3]) == precision_and_recall(sets[0], sets[1])
        assert precision_and_recall(sets[2], sets[2]) == (1.0, 1.0)
