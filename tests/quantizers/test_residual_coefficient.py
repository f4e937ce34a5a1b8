"""Residual coefficients: the stages by hand in float64, and patterns that learn."""

import pytest
import torch

from vq.quantizers import (
    EMACodebook,
    FiniteScalarQuantizer,
    NormalInit,
    ResidualCoefficientQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)


def made(**options):
    torch.manual_seed(0)
    defaults = {
        "quantizer": FiniteScalarQuantizer(levels=[7, 7]),
        "grid": (3, 4),
        "depth": 3,
        "hidden_dim": 16,
    }
    return ResidualCoefficientQuantizer(**defaults | options)


def test_the_stages_are_those_of_the_definition():
    quantizer = made().eval()
    z = torch.randn(5, 3, 4, 2)
    found, total = [], torch.zeros_like(z, dtype=torch.float64)
    rows, columns = torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 4)
    for stage in range(3):
        indices = quantizer.quantizer.encode((z.double() - total).mean((1, 2)))
        code = quantizer.quantizer.decode(indices).double()
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                place = torch.tensor([stage - 1.0, row, column]).double()
                hidden = place @ quantizer.first.weight.double().T + quantizer.first.bias.double()
                normed = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
                pattern = quantizer.last.weight.double() @ (normed * normed.sigmoid())
                total[:, i, j] += code * pattern
        found.append(indices)
    out = quantizer(z)
    assert torch.equal(out.indices, torch.stack(found, dim=1))
    torch.testing.assert_close(out.quantized, total.float(), atol=1e-5, rtol=1e-5)


def test_an_image_has_one_index_a_stage():
    quantizer = made()
    assert (quantizer.codebook_size, quantizer.codebook_dim, quantizer.grid) == (49, 2, (3, 4))
    assert quantizer.encode(torch.randn(2, 6, 3, 4, 2)).shape == (2, 6, 3)


def test_patterns_learn_what_all_images_have_in_common():
    quantizer = made()
    pattern, optimizer = torch.randn(3, 4, 2), torch.optim.Adam(quantizer.parameters(), lr=0.02)
    pattern = pattern / pattern.mean((0, 1))  # so that the mean over positions is the coefficient
    errors = []
    for _ in range(200):
        z = (2 * torch.rand(64, 1, 1, 2) - 1) * pattern
        optimizer.zero_grad()
        error = (quantizer(z).quantized - z).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert sum(errors[-20:]) < 0.25 * sum(errors[:20])


def test_a_codebook_inside_learns_once_a_step_from_all_stages():
    inner = VectorQuantizer(codebook=EMACodebook(size=8, dim=2, decay=0.5, init=NormalInit()))
    made(quantizer=inner)(torch.randn(6, 3, 4, 2))
    assert inner.codebook.usage.sum().item() == pytest.approx(0.5 * 8 + 0.5 * 6 * 3)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match=r"expected a positive grid \(height, width\), depth and hidden_dim"):
        made(grid=(0, 4))
    with pytest.raises(ValueError, match="expected a positive grid"):
        made(depth=0)
    with pytest.raises(ValueError, match="expected a positive grid"):
        made(grid=[3])
    with pytest.raises(ValueError, match="expected a quantizer with one index per vector"):
        made(quantizer=ResidualQuantizer(quantizers=[VectorQuantizer.example()], depth=2))
    with pytest.raises(ValueError, match=r"expected z with the axes \(3, 4\) \(grid\)"):
        made()(torch.randn(2, 4, 3, 2))
