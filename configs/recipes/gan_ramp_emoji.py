"""A discriminator that learns before it pulls: its term enters at half of the run and rises until three quarters.

`configs/recipes/gan_emoji.py` with a discriminator that starts to learn at a quarter, and a weight that is a function
of the step.

Paper:    Zheng et al. 2025 (RAE), https://arxiv.org/abs/2510.11690: it learns from epoch 6 on and pulls from epoch 8 on
Command:  python -m vq.train recipes/gan_ramp_emoji configs/recipes/gan_ramp_emoji.py
Expected: PSNR 21.07 dB, SSIM 0.750, LPIPS-vgg 0.253, LPIPS-alex 0.040, codebook usage 100 %
          (measured here: 600 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 3.8 min)
"""

_base_ = "gan_emoji.py"

from vq.quantizers import LinearAnnealing

options = dict(max_steps=600)
quarter = options["max_steps"] // 4
train_step = dict(
    weights=dict(
        adversarial=dict(type=LinearAnnealing, first=0.0, last=0.5, start=2 * quarter, steps=quarter)
    ),
    adversary=dict(start_step=quarter),
)
