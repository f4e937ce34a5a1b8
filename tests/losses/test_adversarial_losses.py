"""Adversarial losses and penalties against float64 NumPy written from their equations."""

import numpy as np
import pytest
import torch

from vq.losses import (
    GradientPenalty,
    HingeObjective,
    LeCAMPenalty,
    NonSaturatingObjective,
    R1Penalty,
    VanillaObjective,
)
from vq.ops.balance import adaptive_weight

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(1, 2, (3, 1, 4, 4)), RNG.normal(-1, 2, (3, 1, 4, 4))


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def hinge(real, fake):
    return 0.5 * (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())


def cross_entropy(real, fake):
    return -0.5 * (log_sigmoid(real).mean() + log_sigmoid(-fake).mean())


OBJECTIVES = [
    (HingeObjective, lambda fake: -fake.mean(), hinge),
    (VanillaObjective, lambda fake: -fake.mean(), cross_entropy),
    (NonSaturatingObjective, lambda fake: -log_sigmoid(fake).mean(), cross_entropy),
]


class TestObjectives:
    @pytest.mark.parametrize(("kind", "generator", "discriminator"), OBJECTIVES)
    def test_equations(self, kind, generator, discriminator):
        real, fake = torch.tensor(REAL), torch.tensor(FAKE)
        assert kind().generator(fake).item() == pytest.approx(generator(FAKE), rel=1e-12)
        assert kind().discriminator(real, fake).item() == pytest.approx(discriminator(REAL, FAKE), rel=1e-12)

    @pytest.mark.parametrize("kind", [HingeObjective, VanillaObjective, NonSaturatingObjective])
    def test_both_sides_pull_the_right_way(self, kind):
        real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
        up_for_generator = torch.autograd.grad(kind().generator(fake), fake)[0]
        on_real, on_fake = torch.autograd.grad(kind().discriminator(real, fake), (real, fake))
        assert (up_for_generator < 0).all()  # descending the loss raises the logits of reconstructions
        assert (on_real < 0).all()
        assert (on_fake > 0).all()

    def test_the_non_saturating_generator_is_cross_entropy_against_ones(self):
        logits = torch.tensor(FAKE)
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        torch.testing.assert_close(NonSaturatingObjective().generator(logits), wanted)


class Quadratic(torch.nn.Module):
    """Has the logits 0.5 a |x|^2 and b sum(x), whose gradients are known."""

    def forward(self, x):
        flat = x.flatten(1)
        return torch.stack([1.5 * flat.square().sum(1), 0.5 * flat.sum(1)], dim=1)


def penalty_of(penalty, image, reconstruction, real=None, fake=None):
    logits = torch.zeros(len(image), 2)
    return penalty(
        judge=Quadratic(),
        image=image,
        reconstruction=reconstruction,
        real=logits if real is None else real,
        fake=logits if fake is None else fake,
    )


class TestGradientPenalties:
    def test_r1(self):
        image = torch.tensor(RNG.normal(size=(3, 3, 2, 2)), dtype=torch.float32)
        gradient = (3 * image.numpy().astype(np.float64) + 0.5) / 2  # gradient of the mean of the two logits
        wanted = (gradient.reshape(3, -1) ** 2).sum(1).mean()
        assert penalty_of(R1Penalty(), image, image).item() == pytest.approx(wanted, rel=1e-5)

    def test_gradient_penalty_is_between_its_ends_and_is_the_formula_where_they_meet(self):
        image = torch.tensor(RNG.normal(size=(3, 3, 2, 2)), dtype=torch.float32)
        gradient = ((3 * image.numpy().astype(np.float64) + 0.5) / 2).reshape(3, -1)
        wanted = ((np.sqrt((gradient**2).sum(1)) - 1) ** 2).mean()
        assert penalty_of(GradientPenalty(), image, image).item() == pytest.approx(wanted, rel=1e-5)
        torch.manual_seed(0)
        places = torch.rand(3, 1, 1, 1)
        torch.manual_seed(0)
        found = penalty_of(GradientPenalty(), image, -image)
        between = (image * (2 * places - 1)).numpy().astype(np.float64)
        gradient = ((3 * between + 0.5) / 2).reshape(3, -1)
        wanted = ((np.sqrt((gradient**2).sum(1)) - 1) ** 2).mean()
        assert found.item() == pytest.approx(wanted, rel=1e-5)

    def test_their_gradient_reaches_the_discriminator(self):
        net = torch.nn.Conv2d(3, 1, 1)
        image = torch.randn(2, 3, 4, 4)
        value = R1Penalty()(judge=net, image=image, reconstruction=image, real=net(image), fake=net(image))
        value.backward()
        # The gradient of the mean logit is w / 16 at each of 16 pixels: |w|^2 / 16 in all.
        torch.testing.assert_close(net.weight.grad, net.weight.detach() / 8)

    @pytest.mark.parametrize("kind", [R1Penalty, GradientPenalty])
    def test_a_wrong_interval_is_refused(self, kind):
        with pytest.raises(ValueError, match="expected every to be at least 1, got 0"):
            kind(every=0)


class TestLeCAM:
    def test_pulls_each_side_to_the_other_s_running_mean(self):
        penalty = LeCAMPenalty(decay=0.9)
        image = torch.zeros(3, 3, 2, 2)
        real, fake = torch.tensor(REAL), torch.tensor(FAKE)
        assert penalty_of(penalty, image, image, real, fake) == 0  # there are no running means yet
        anchor_real, anchor_fake = 2.0, -1.0
        penalty.update(torch.tensor(2.0), torch.tensor(-1.0))
        for mean_real, mean_fake in ((1.0, -3.0), (0.0, 0.0)):
            penalty.update(torch.tensor(mean_real), torch.tensor(mean_fake))
            anchor_real = 0.9 * anchor_real + 0.1 * mean_real
            anchor_fake = 0.9 * anchor_fake + 0.1 * mean_fake
        wanted = ((REAL - anchor_fake) ** 2).mean() + ((FAKE - anchor_real) ** 2).mean()
        found = penalty_of(penalty, image, image, real, fake)
        assert found.item() == pytest.approx(wanted, rel=1e-6)

    def test_a_wrong_decay_is_refused(self):
        with pytest.raises(ValueError, match=r"LeCAMPenalty: expected a decay in \[0, 1\), got 1.0"):
            LeCAMPenalty(decay=1.0)


class TestAdaptiveWeight:
    def test_equation(self):
        a, b = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 3))
        wanted = 0.75 * np.sqrt((a**2).sum()) / (np.sqrt((b**2).sum()) + 1e-4)
        found = adaptive_weight(torch.tensor(a), torch.tensor(b), gain=0.75)
        assert found.item() == pytest.approx(wanted, rel=1e-12)

    def test_a_vanishing_gradient_is_not_divided_by(self):
        assert adaptive_weight(torch.full((9,), 1e3), torch.zeros(9)) == pytest.approx(0.8 * 1e4)

    def test_norms_of_half_precision_have_the_digits_of_float32(self):
        a, b = (torch.tensor(RNG.normal(size=50)).bfloat16() for _ in range(2))
        wanted = a.double().norm() / (b.double().norm() + 1e-4)
        assert adaptive_weight(a, b, gain=1.0).item() == pytest.approx(wanted.item(), rel=1e-6)

    def test_norms_of_small_numbers_do_not_vanish_in_bfloat16(self):
        small = torch.full((100_000,), 2.0**-10, dtype=torch.bfloat16)
        found = adaptive_weight(small, small, gain=1.0)
        assert found.dtype == torch.float32
        assert found == pytest.approx(1.0, rel=1e-3)
