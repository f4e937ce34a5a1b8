"""VQGAN with 1024 codes on your own folder of images, f8, 64 px; its discriminator starts halfway.

The images are read as by configs/ema/1024_folder.py, which lists the options; docs/own_pictures.md.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1
Command:  vq train mine vqgan/1024_folder --config-options root::my_pictures
          (the page is configs/vqgan/1024_folder.py)
Expected: with max_steps:500, PSNR 18.61 dB, SSIM 0.527, LPIPS-vgg 0.456, codebook usage 59 %
          (measured here: 500 steps, seed 3407, 1 thread, on the set of docs/own_pictures.md)
Needs:    a folder of images
"""

_base_ = "ema/1024_folder.py"

from torch.optim import Adam, AdamW

from vq.engine import AdversarialStep, Adversary, Constant, WarmupCosine
from vq.layers import DiffAugment
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.networks import PatchDiscriminator

options = dict(channels=3, max_steps=2000)
channels = options["channels"]
rgb = {1: (0, 0, 0), 2: (0, 1, 1), 3: None}.get(channels, (0, 1, 2))  # the channels that LPIPS sees

train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="alex", rgb=rgb)),
    # adversarial: the gain of the adaptive weight
    weights=dict(l1=1.0, lpips=0.1, quantizer=1.0, adversarial=0.25),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=options["max_steps"] // 20, final_factor=0.02),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, base_width=32, depth=2, image_channels=channels),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=5e-5, betas=(0.5, 0.9)),
        augmentation=dict(type=DiffAugment),
        schedule=dict(type=Constant),
        start_step=options["max_steps"] // 2,
    ),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
