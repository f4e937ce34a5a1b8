"""Alternating optimisation: before each step the codes take two steps of their own, towards fixed vectors.

`configs/recipes/emoji.py` with `AlternatingStep` around its step.

Paper:    Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842, section 4.3
Command:  python -m vq.train recipes/alternating_emoji configs/recipes/alternating_emoji.py
Expected: PSNR 21.06 dB, SSIM 0.751, LPIPS-vgg 0.246, LPIPS-alex 0.062, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 109 s)
"""

_base_ = "emoji.py"

from torch.optim import AdamW

from vq.engine import AlternatingStep, ReconstructionStep, WarmupCosine
from vq.losses import L1Loss

train_step = dict(
    type=AlternatingStep,
    step=dict(
        type=ReconstructionStep,
        losses=dict(l1=dict(type=L1Loss)),
        weights=dict(l1=1.0, quantizer=1.0),
        optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
        schedule=dict(type=WarmupCosine, warmup_steps=25, final_factor=0.02),
        max_gradient_norm=1.0,
        weight_ema=0.99,
    ),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    num_codebook_steps=2,
)
