"""The table of norms in docs/training.md: each paper's loss written out in float64, against the options named there."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vq.engine import Adversary, ReconstructionStep
from vq.losses import (
    AdversarialObjective,
    HingeObjective,
    L1Loss,
    MSELoss,
    NonSaturatingObjective,
    R1Penalty,
)
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.ops.images import to_signed_unit
from vq.quantizers import GumbelQuantizer, LearnedCodebook, NormalInit, Quantizer, VectorQuantizer
from vq.tokenizers import ImageTokenizer

SIDE, DIM = 16, 6
BATCH = {
    "image": torch.randint(256, (3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).byte(),
    "key": ["a", "b", "c"],
}


def step_of(
    quantizer: Quantizer, losses: Mapping[str, Any], weights: Mapping[str, float]
) -> ReconstructionStep:
    torch.manual_seed(1)
    widths = (8, 8)
    encoder, decoder = StridedCNNEncoder(widths=widths), StridedCNNDecoder(widths=widths)
    model = ImageTokenizer(encoder=encoder, quantizer=quantizer, decoder=decoder).double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return ReconstructionStep(tokenizer=model, losses=losses, weights=weights, optimizer=optimizer)


def test_vq_vae_is_a_likelihood_and_squared_lengths() -> None:
    """-log N(x; reconstruction, 1) without its constant, and |sg z - e|^2 + beta |z - sg e|^2, mean over positions."""
    quantizer = VectorQuantizer(
        codebook=LearnedCodebook(size=7, dim=DIM, init=NormalInit()), commitment_weight=0.25
    )
    step = step_of(quantizer, {"mse": MSELoss(mean_over="images")}, {"mse": 0.5, "quantizer": float(DIM)})
    image = to_signed_unit(BATCH["image"]).double()
    with torch.no_grad():
        output = step.tokenizer(image)
        z, codes = output.latent, step.tokenizer.quantizer.codebook.vectors
        distance = (z[..., None, :] - codes).square().sum(-1).amin(-1)  # of the nearest code
    likelihood = 0.5 * (output.reconstruction - image).square().flatten(1).sum(1).mean()
    wanted = likelihood + 1.25 * distance.mean()
    assert step([BATCH], 0)["loss/total"].item() == pytest.approx(wanted.item(), rel=1e-12)


def test_dall_e_divides_its_loss_by_the_number_of_values() -> None:
    """(sum of |x - x'| + beta * sum of the KL over positions) / values; at 256 px and f8 the weight is beta / 192."""
    beta, positions, values = 6.6, (SIDE // 4) ** 2, 3 * SIDE**2
    assert positions / values == 1 / (3 * 4**2)
    assert 32**2 / (3 * 256**2) == 1 / 192
    quantizer = GumbelQuantizer(size=7, dim=DIM, kl_weight=beta * positions / values)
    step = step_of(quantizer, {"l1": L1Loss()}, {"l1": 1.0, "quantizer": 1.0})
    kept = {}
    step.tokenizer.quantizer.register_forward_hook(lambda m, i, o: kept.update(z=i[0].detach()))
    step.tokenizer.decoder.register_forward_hook(lambda m, i, o: kept.update(reconstruction=o.detach()))
    total = step([BATCH], 0)["loss/total"].item()
    image = to_signed_unit(BATCH["image"]).double()
    logits = step.tokenizer.quantizer.to_logits(kept["z"])
    log_p = F.log_softmax(logits, dim=-1).flatten(0, -2)
    divergence = (log_p.exp() * (log_p + torch.tensor(7.0, dtype=torch.float64).log())).sum() / len(image)
    pixels = (kept["reconstruction"] - image).abs().sum() / len(image)
    assert total == pytest.approx(((pixels + beta * divergence) / values).item(), rel=1e-12)


@pytest.mark.parametrize("objective", [HingeObjective(), NonSaturatingObjective()], ids=["hinge", "2014"])
def test_with_the_weight_2_an_objective_is_the_sum_of_the_paper(objective: AdversarialObjective) -> None:
    """Both papers add the means of both sides; R1 is gamma / 2 times the squared gradient of an image's score."""
    torch.manual_seed(2)
    discriminator = PatchDiscriminator(base_width=4, depth=1, norm="group").double()
    gamma = 10.0
    adversary = Adversary(
        discriminator=discriminator,
        objective=objective,
        penalties={"r1": R1Penalty(every=1)},
        weights={"objective": 2.0, "r1": gamma / 2},
        optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.0),
    )
    image = torch.rand(3, 3, SIDE, SIDE, dtype=torch.float64) * 2 - 1
    fake = (image / 2).requires_grad_()
    adversary.prepare(0)
    found = adversary.judge(fake, image, share=1.0, autocast=False).scalars["discriminator/total"]
    real_logits, fake_logits = discriminator(image), discriminator(fake)
    if isinstance(objective, HingeObjective):
        wanted = (1 - real_logits).clamp_min(0).mean() + (1 + fake_logits).clamp_min(0).mean()
    else:
        wanted = -(real_logits.sigmoid().log().mean() + (1 - fake_logits.sigmoid()).log().mean())
    seen = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(seen).mean(dim=(1, 2, 3)).sum(), seen)
    wanted = wanted + gamma / 2 * gradient.square().flatten(1).sum(1).mean()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
