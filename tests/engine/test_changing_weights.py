"""Weights of losses that are functions of the step, alone, with the adaptive weight, and in a late discriminator."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vq import config
from vq.engine import AdversarialStep, Adversary, ReconstructionStep
from vq.engine.steps.schedules import Weights
from vq.losses import HingeObjective, L1Loss, MSELoss, R1Penalty
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import Annealing, CosineAnnealing, FiniteScalarQuantizer, LinearAnnealing
from vq.tokenizers import ImageTokenizer

RAMP = LinearAnnealing(first=0.0, last=0.8, start=3, steps=4)
Step = ReconstructionStep | AdversarialStep


def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    widths = (8, 8)
    encoder, decoder = StridedCNNEncoder(widths=widths), StridedCNNDecoder(widths=widths)
    quantizer = FiniteScalarQuantizer(levels=[5, 5])
    return ImageTokenizer(encoder=encoder, quantizer=quantizer, decoder=decoder).double().train()


def reconstruction(weights: dict[str, Any]) -> ReconstructionStep:
    model = tokenizer()
    return ReconstructionStep(
        tokenizer=model,
        losses={"l1": L1Loss(), "mse": MSELoss()},
        weights=weights | {"quantizer": 1.0},
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    )


def adversarial(weight: float | Annealing, *, start_step: int = 0, **options: Any) -> AdversarialStep:
    model = tokenizer()
    discriminator = PatchDiscriminator(base_width=4, depth=1, norm="group").double()
    return AdversarialStep(
        tokenizer=model,
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0, "adversarial": weight},
        adversary=Adversary(
            discriminator=discriminator,
            objective=HingeObjective(),
            start_step=start_step,
            optimizer=torch.optim.Adam(discriminator.parameters(), lr=1e-3),
        ),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        **options,
    )


def take(step: Step, number: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(number)
    image = lambda: torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)  # noqa: E731
    return step([{"image": image(), "key": ["a", "b"]} for _ in range(step.accumulate)], number)


def parameters_of(step: Step) -> list[torch.Tensor]:
    return [p.detach().clone() for p in step.tokenizer.parameters()]


@pytest.mark.parametrize("kind", [LinearAnnealing, CosineAnnealing])
def test_a_change_may_begin_later(kind: Callable[..., Annealing]) -> None:
    now, later = kind(first=2.0, last=0.5, steps=10), kind(first=2.0, last=0.5, steps=10, start=7)
    assert [later.at(step) for step in range(7)] == [2.0] * 7
    assert [later.at(step + 7) for step in range(15)] == [now.at(step) for step in range(15)]
    with pytest.raises(ValueError, match="expected start to be at least 0, got -1; 0 is the first step"):
        kind(first=2.0, last=0.5, steps=10, start=-1)


def test_each_step_is_that_of_the_numbers_of_the_moment() -> None:
    """Against a step whose weights are numbers, set by hand before each step; in float64, bit for bit."""
    mse = CosineAnnealing(first=0.0, last=2.0, steps=4)
    changing, by_hand = reconstruction({"l1": RAMP, "mse": mse}), reconstruction({"l1": 0.0, "mse": 0.0})
    for number in range(9):
        l1 = 0.8 * min(1.0, max(0, number - 3) / 4)
        by_hand.weights.update(l1=l1, mse=mse.at(number))
        scalars, wanted = take(changing, number), take(by_hand, number)
        assert scalars["weight/l1"] == pytest.approx(l1, abs=1e-7)
        assert scalars["loss/total"] == wanted["loss/total"]
        assert "weight/quantizer" not in scalars
        assert not any(name.startswith("weight/") for name in wanted)
        for a, b in zip(parameters_of(changing), parameters_of(by_hand), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"is_adaptive": False}], ids=str)
def test_a_discriminator_learns_before_it_pulls(options: dict[str, Any]) -> None:
    """It learns from step 1, and its weight rises from step 3 to step 7; the plain run has none until step 99."""
    step, plain = adversarial(RAMP, start_step=1, **options), adversarial(0.8, start_step=99, **options)
    full = adversarial(0.8, start_step=1, **options)
    for number in range(9):
        before = [p.detach().clone() for p in step.adversary.discriminator.parameters()]
        if number > 3:  # from here on against the full weight, from the same state
            full.tokenizer.load_state_dict(step.tokenizer.state_dict())
            full.load_state_dict(step.state_dict())
        scalars = take(step, number)
        learned = any(
            not torch.equal(a, b)
            for a, b in zip(before, step.adversary.discriminator.parameters(), strict=True)
        )
        assert learned == (number >= 1)
        assert (scalars["loss/adversarial"] != 0) == (number >= 1)
        if number <= 3:
            take(plain, number)
            assert scalars["adversarial_weight"] == 0
            for a, b in zip(parameters_of(step), parameters_of(plain), strict=True):
                assert torch.equal(a, b)
        else:
            share = min(1.0, (number - 3) / 4)
            wanted = share * take(full, number)["adversarial_weight"].double()
            torch.testing.assert_close(scalars["adversarial_weight"].double(), wanted, atol=0, rtol=1e-6)
            assert scalars["weight/adversarial"] == pytest.approx(0.8 * share)


def test_the_weights_of_penalties_change_too() -> None:
    discriminator = PatchDiscriminator(base_width=4, depth=1)
    adversary = Adversary(
        discriminator=discriminator,
        objective=HingeObjective(),
        penalties={"r1": R1Penalty(every=1)},
        weights={"objective": 1.0, "r1": LinearAnnealing(first=1.0, last=0.0, steps=10)},
        optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.01),
    )
    image = torch.rand(2, 3, 16, 16)
    adversary.prepare(4)
    scalars = adversary.judge(image.requires_grad_(), image.detach(), share=1.0, autocast=False).scalars
    total = scalars["discriminator/objective"] + 0.6 * scalars["discriminator/r1"]
    torch.testing.assert_close(scalars["discriminator/total"], total)
    assert adversary.update(scalars)["discriminator/weight/r1"] == pytest.approx(0.6)


def test_a_page_gives_a_weight_as_a_function() -> None:
    ramp = {"type": "LinearAnnealing", "first": 0.0, "last": 1.0, "steps": 5}
    tree = {"train_step": {"type": "vq.engine.ReconstructionStep", "weights": {"l1": ramp, "quantizer": 1.0}}}
    config.check(tree)
    tree["train_step"]["weights"]["l1"] = ramp | {"step": 5}
    with pytest.raises(
        config.ConfigError, match=r"train_step.weights.l1: cannot build .*\n.*'step'; did you"
    ):
        config.check(tree)


def test_what_is_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weights: expected one for each of \['l1'\], got \['l2'\]"):
        Weights({"l2": 1.0}, ["l1"])
    for wrong in ("1", True, None):
        with pytest.raises(ValueError, match="expected 'l1' to be a number or a function of the step"):
            Weights({"l1": wrong}, ["l1"])
