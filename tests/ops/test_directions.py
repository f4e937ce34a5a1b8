"""The direction of a vector at every length: its value, and a gradient that stays bounded."""

import pytest
import torch
from torch import Tensor

from vq.losses import CosineFeatureLoss
from vq.ops.directions import SHORTEST, bounded_inverse, length, unit
from vq.ops.gradients import rotate
from vq.ops.orthogonality import orthogonality
from vq.quantizers import (
    BinarySphericalQuantizer,
    CosineDistance,
    DirectionDistance,
    LearnedCodebook,
    NormalInit,
    Quantizer,
    RotationTrick,
    VectorQuantizer,
)

TINY = [0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-12]
LENGTHS = [1e-40, 1e-30, 1e-20, 1e-6, 1e-3, 1.0, 1e3, 1e20, 1e38]


def plain(x: Tensor) -> Tensor:
    return x / x.square().sum(dim=-1, keepdim=True).sqrt()


@pytest.mark.parametrize("size", LENGTHS)
def test_the_value_is_that_of_float64_at_any_length(size: float) -> None:
    x = torch.nn.functional.normalize(torch.randn(50, 6), dim=-1) * size
    # A denormal x has only a few digits, so its direction has no more.
    torch.testing.assert_close(unit(x).double(), plain(x.double()), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        length(x).double(), x.double().norm(dim=-1, keepdim=True), rtol=1e-6, atol=2e-45
    )


def test_ordinary_lengths_have_the_bits_of_a_plain_division() -> None:
    x = torch.randn(1000, 7) * torch.logspace(-10, 10, 1000)[:, None]
    assert torch.equal(unit(x), x / torch.linalg.vector_norm(x, dim=-1, keepdim=True))


@pytest.mark.parametrize("size", [2 * SHORTEST, 1e-3, 1.0, 1e3, 1e20])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_gradient_is_that_of_float64(size: float, dim: int) -> None:
    x = torch.nn.functional.normalize(torch.randn(5, 6), dim=dim) * size
    weight = torch.randn(5, 6)
    exact, found = x.double().requires_grad_(), x.clone().requires_grad_()
    ((exact / exact.norm(dim=dim, keepdim=True)) * weight.double()).sum().backward()
    (unit(found, dim) * weight).sum().backward()
    assert exact.grad is not None
    assert found.grad is not None
    torch.testing.assert_close(found.grad.double() * size, exact.grad * size, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (x,))


def test_the_factor_of_the_gradient_rises_to_its_bound_and_falls_as_the_length() -> None:
    lengths = torch.tensor([0.0, 1e-30, 0.5, 1.0, 2.0, torch.inf]) * SHORTEST
    expected = torch.tensor([0.0, 1e-30, 0.5, 1.0, 0.5, 0.0]) / SHORTEST
    torch.testing.assert_close(bounded_inverse(lengths), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zeros_stay_zeros_without_a_gradient_in_every_dtype(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
    directions = unit(x)
    directions.sum().backward()
    assert directions.dtype == dtype
    assert not directions.any()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_shows(value: float) -> None:
    assert unit(torch.tensor([[value, 1.0]])).isnan().any()


def cosine(**options: object) -> Quantizer:
    book = LearnedCodebook(size=16, dim=4, init=NormalInit())
    return VectorQuantizer(codebook=book, **options)  # type: ignore[arg-type]


KINDS = {
    "cosine": lambda: cosine(distance=CosineDistance()),
    "direction": lambda: cosine(distance=DirectionDistance()),
    "rotation": lambda: cosine(estimator=RotationTrick()),
    "cosine and rotation": lambda: cosine(distance=CosineDistance(), estimator=RotationTrick()),
    "BSQ": lambda: BinarySphericalQuantizer(bits=4, commitment_weight=1.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", TINY)
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_without_a_direction_does_not_drown_the_others(
    kind: str, size: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    quantizer = KINDS[kind]()
    z = torch.randn(8, 4)
    z[0] = size
    z = z.to(dtype).requires_grad_()
    output = quantizer(z)
    (output.quantized.float().sum() + output.loss).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad[0].abs().max() <= 2 * z.grad[1:].abs().max()


def test_a_code_of_zeros_does_not_drown_the_others() -> None:
    torch.manual_seed(0)
    quantizer = cosine(distance=CosineDistance(), estimator=RotationTrick())
    with torch.no_grad():
        quantizer.codebook.weight[3] = 0  # type: ignore[union-attr, operator]
    output = quantizer(torch.cat([torch.zeros(1, 4), torch.randn(7, 4)]).requires_grad_())
    (output.quantized.sum() + output.loss).backward()
    gradient = quantizer.codebook.weight.grad  # type: ignore[union-attr]
    assert isinstance(gradient, Tensor)
    assert gradient[3].abs().max() <= 1e-3 * gradient.abs().max()


@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e3, 1e18])
@pytest.mark.parametrize("kind", ["cosine", "direction", "BSQ"])
def test_indices_do_not_depend_on_the_length(kind: str, scale: float) -> None:
    quantizer, z = KINDS[kind](), torch.randn(50, 4)
    assert torch.equal(quantizer.encode(z * scale), quantizer.encode(z))


def test_a_rotation_has_the_gradient_of_the_papers_matrix() -> None:
    z, code, weight = torch.randn(3, 1, 5, dtype=torch.float64).unbind()
    z.requires_grad_()
    (rotate(z, code) * weight).sum().backward()
    a, b = plain(z.detach())[0], plain(code)[0]
    r = plain((a + b)[None])[0]
    matrix = torch.eye(5, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(b, a)
    expected = code.norm() / z.detach().norm() * (matrix.T @ weight[0])
    torch.testing.assert_close(rotate(z, code), code)
    assert z.grad is not None
    torch.testing.assert_close(z.grad[0], expected)


def test_a_rotation_onto_the_opposite_direction_keeps_the_length_of_a_gradient() -> None:
    z = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 5, dtype=torch.float64)
    (rotate(z, -z.detach()) * weight).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad.norm(), weight.norm())


@pytest.mark.parametrize("size", TINY)
def test_losses_between_directions_are_as_bounded(size: float) -> None:
    features = torch.randn(1, 3, 2, 2)
    features[..., 0, 0] = size
    features.requires_grad_()
    CosineFeatureLoss()(features, torch.randn(1, 3, 2, 2)).backward()
    assert features.grad is not None
    assert features.grad[..., 0, 0].abs().max() <= features.grad.abs().max() < 10
    codes = torch.randn(4, 3)
    codes[0] = size
    codes.requires_grad_()
    orthogonality(codes).backward()
    assert codes.grad is not None
    assert codes.grad.abs().max() < 10
