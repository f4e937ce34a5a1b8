"""Options that would have no effect raise when a quantizer is constructed."""

import pytest
import torch

from vq.quantizers import (
    AffineCodebook,
    BottleneckQuantizer,
    CarryQuantizer,
    ClusteredCodebook,
    Codebook,
    EMACodebook,
    FrozenCodebook,
    GumbelQuantizer,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    ProductQuantizer,
    ProjectedCodebook,
    Quantizer,
    ReplaceDeadCodes,
    ResidualQuantizer,
    RotationTrick,
    SoftmaxQuantizer,
    Synchronised,
    VectorQuantizer,
)


@pytest.mark.parametrize("codebook", [EMACodebook.example(), FrozenCodebook.example()])
def test_a_gradient_for_codes_that_do_not_learn_by_gradient_is_refused(codebook: Codebook) -> None:
    with pytest.raises(
        ValueError, match=r"for Synchronised, got \w+, on whose codes it has no effect; use Learned"
    ):
        VectorQuantizer(codebook=codebook, estimator=Synchronised())
    VectorQuantizer(codebook=codebook, estimator=Synchronised(nu=0.0))  # nu = 0 is straight-through


@pytest.mark.parametrize(
    "codebook",
    [
        LearnedCodebook.example(),
        ClusteredCodebook.example(),
        ProjectedCodebook.example(),
        AffineCodebook(codebook=EMACodebook.example()),  # scale and shift learn by gradient
    ],
)
def test_a_gradient_for_codes_that_learn_by_it_changes_their_gradient(codebook: Codebook) -> None:
    z = torch.randn(8, 4)
    gradients = []
    for nu in (0.0, 0.5):
        codebook.zero_grad()
        VectorQuantizer(codebook=codebook, estimator=Synchronised(nu=nu))(z).quantized.sum().backward()
        gradients.append([p.grad for p in codebook.parameters() if p.grad is not None])
    assert not any(gradient.any() for gradient in gradients[0])
    assert any(gradient.abs().sum() > 0 for gradient in gradients[1])


def rotated() -> VectorQuantizer:
    return VectorQuantizer(codebook=LearnedCodebook.example(), estimator=RotationTrick())


@pytest.mark.parametrize(
    "stage",
    [
        rotated(),
        GumbelQuantizer.example(),
        SoftmaxQuantizer.example(),
        BottleneckQuantizer.example(),
        CarryQuantizer(quantizer=rotated(), digits=2),
        ProductQuantizer(quantizers=[VectorQuantizer.example(), rotated()], is_packed=True),
    ],
)
def test_what_needs_the_gradient_of_the_task_is_no_part_of_a_multi_scale(stage: Quantizer) -> None:
    with pytest.raises(
        ValueError, match="MultiScaleResidualQuantizer: expected a quantizer that learns by its own"
    ):
        MultiScaleResidualQuantizer(quantizer=stage, scales=[1, 2])


def test_a_bottleneck_around_stages_is_in_order() -> None:
    whole = BottleneckQuantizer(quantizer=ResidualQuantizer.example(), dim=6)
    whole(torch.randn(5, 6)).quantized.sum().backward()
    assert all(parameter.grad is not None for parameter in whole.parameters())


def test_options_that_need_another_are_refused_without_it() -> None:
    with pytest.raises(ValueError, match=r"at least two stages for prefixes, got one and prefix_rate=0.5"):
        ResidualQuantizer(quantizers=[VectorQuantizer.example()], prefix_rate=0.5)
    with pytest.raises(ValueError, match=r"expected no usage_decay without a revival, got 0.9"):
        LearnedCodebook(size=4, dim=2, usage_decay=0.9)
    assert LearnedCodebook(size=4, dim=2, revival=ReplaceDeadCodes()).usage_decay == 0.99
