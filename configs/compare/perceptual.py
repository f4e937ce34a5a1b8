"""What a perceptual loss buys: LPIPS with weights from 0 to 2, features, logits and Gram matrices, and a discriminator.

The loss is L1 and the term named; the scores are PSNR and LPIPS with both networks, of which `alex` is also trained on.
On 32 px emoji, f4.

Command:  python -m vq.compare configs/compare/perceptual.py
Expected: LPIPS-vgg none 0.264, features -0.019 +- 0.003, lpips_1 +0.022 +- 0.024, lpips_2 +0.034 +- 0.021,
          gram +0.061 +- 0.017, discriminator +0.002 +- 0.009; rows in experiments/perceptual
          (measured here, 2026-11-28, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from torch.optim import Adam, AdamW

from vq.engine import AdversarialStep, Adversary, Comparison, Constant, WarmupCosine
from vq.layers import DiffAugment
from vq.losses import FeatureLoss, GramLoss, HingeObjective, L1Loss, LogitsLoss, LPIPSLoss
from vq.networks import EfficientNetLite0, LPIPSNetwork, PatchDiscriminator

small = dict(type=EfficientNetLite0, size=64)


def with_term(loss, weight):
    """A contestant with one more term in its loss."""
    losses = dict(l1=dict(type=L1Loss), perceptual=loss)
    return dict(train_step=dict(losses=losses, weights=dict(l1=1.0, perceptual=weight)))


def with_discriminator(**weights):
    """A contestant with the discriminator of configs/recipes/gan_emoji.py from step 250 on."""
    losses = dict(l1=dict(type=L1Loss), perceptual=lpips) if weights else dict(l1=dict(type=L1Loss))
    adversary = dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, base_width=32, depth=2),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=1e-4, betas=(0.5, 0.9)),
        augmentation=dict(type=DiffAugment),
        schedule=dict(type=Constant),
        start_step=250,
    )
    step = dict(
        type=AdversarialStep,
        losses=losses,
        weights=dict(l1=1.0, quantizer=1.0, adversarial=0.5, **weights),
        optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
        schedule=dict(type=WarmupCosine, warmup_steps=25, final_factor=0.02),
        adversary=adversary,
        max_gradient_norm=1.0,
        weight_ema=0.99,
    )
    return dict(train_step=step)


lpips = dict(type=LPIPSLoss, network="alex")
contestants = dict(
    none=dict(),
    lpips_0_1=with_term(lpips, 0.1),
    lpips_0_5=with_term(lpips, 0.5),
    lpips_1=with_term(lpips, 1.0),
    lpips_2=with_term(lpips, 2.0),
    features=with_term(dict(type=FeatureLoss, network=small), 0.1),
    logits=with_term(dict(type=LogitsLoss, network=small), 0.02),
    gram=with_term(dict(type=GramLoss, network=dict(type=LPIPSNetwork, trunk="alex")), 1e-4),
    discriminator=with_discriminator(),
    lpips_1_discriminator=with_discriminator(perceptual=1.0),
)
comparison = dict(
    type=Comparison,
    question="What does a perceptual loss buy, and at which weight?",
    baseline="none",
    score="lpips_vgg",
    seeds=(0, 1, 2),
    cpu_hours=2.0,
)
