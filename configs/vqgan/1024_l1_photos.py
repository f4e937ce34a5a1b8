"""What a discriminator alone does: 64 px crops of photographs, f8, 1024 codes, L1, and a PatchGAN from halfway on.

`configs/vqgan/1024_photos.py` without the perceptual loss, so that LPIPS measures something that was not trained on.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1
Command:  python -m vq.train vqgan/1024_l1_photos configs/vqgan/1024_l1_photos.py
Expected: PSNR 23.43 dB, SSIM 0.631, LPIPS-alex 0.304, LPIPS-vgg 0.512, codebook usage 74 %; images in docs/training.md
          (measured here: 1,000 steps, seed 3407, 1 thread; without the discriminator,
          .train_step.adversary.start_step:1000, 23.73 dB, 0.652, 0.372, 0.501, 75 %;
          measured before the photographs moon and motorcycle, whose licence is not stated, left the training set)
"""

_base_ = "1024_photos.py"

from torch.optim import Adam, AdamW

from vq.engine import AdversarialStep, Adversary, Constant, WarmupCosine
from vq.layers import DiffAugment
from vq.losses import HingeObjective, L1Loss
from vq.networks import PatchDiscriminator

options = dict(max_steps=1000)
train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss)),
    # adversarial: the gain of the adaptive weight
    weights=dict(l1=1.0, quantizer=1.0, adversarial=0.5),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, base_width=32, depth=2),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=1e-4, betas=(0.5, 0.9)),
        augmentation=dict(type=DiffAugment),
        schedule=dict(type=Constant),
        start_step=options["max_steps"] // 2,
    ),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
