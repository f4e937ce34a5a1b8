"""Quantization between two linear maps."""

import pytest
import torch

from vq.quantizers import (
    BottleneckQuantizer,
    CosineDistance,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    ResidualQuantizer,
    VectorQuantizer,
)


def made(dim=12):
    book = LearnedCodebook(size=16, dim=3, init=NormalInit())
    return BottleneckQuantizer(quantizer=VectorQuantizer(codebook=book, distance=CosineDistance()), dim=dim)


def test_it_is_the_quantizer_between_the_two_maps():
    torch.manual_seed(0)
    quantizer = made().eval()
    z = torch.randn(50, 12)
    low = z.double() @ quantizer.project_in.weight.double().T + quantizer.project_in.bias.double()
    codes = torch.nn.functional.normalize(quantizer.quantizer.codebook.vectors.detach().double(), dim=1)
    indices = (torch.nn.functional.normalize(low, dim=1) @ codes.T).argmax(1)
    expected = codes[indices] @ quantizer.project_out.weight.double().T + quantizer.project_out.bias.double()
    out = quantizer(z)
    assert torch.equal(out.indices, indices)
    torch.testing.assert_close(out.quantized, expected.float(), atol=1e-6, rtol=1e-5)


def test_sizes_and_stages_are_those_of_the_quantizer_inside():
    stages = ResidualQuantizer(quantizers=[VectorQuantizer.example()], depth=3)
    quantizer = BottleneckQuantizer(quantizer=stages, dim=7)
    assert (quantizer.codebook_size, quantizer.codebook_dim) == (16, 7)
    assert quantizer(torch.randn(2, 5, 7)).indices.shape == (2, 5, 3)


def test_it_may_hold_a_quantizer_of_grids():
    scales = MultiScaleResidualQuantizer(quantizer=VectorQuantizer.example(), scales=[1, 2])
    quantizer = BottleneckQuantizer(quantizer=scales, dim=7).eval()
    z = torch.randn(3, 2, 2, 7)
    assert quantizer(z).indices.shape == (3, 5)
    assert torch.equal(quantizer.decode(quantizer.encode(z)), quantizer(z).quantized)


def test_the_task_and_the_loss_reach_the_maps():
    quantizer = made()
    out = quantizer(torch.randn(20, 12))
    out.loss.backward()
    assert quantizer.project_in.weight.grad.abs().sum() > 0
    assert quantizer.project_out.weight.grad is None
    out = quantizer(torch.randn(20, 12))
    out.quantized.square().sum().backward()
    assert quantizer.project_out.weight.grad.abs().sum() > 0


def test_a_dim_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="BottleneckQuantizer: expected a positive dim, got 0"):
        made(dim=0)
