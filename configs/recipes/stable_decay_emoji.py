"""A learning rate that stays until the last fifth of the run, in which it falls (warm-up, stable, decay).

`configs/recipes/emoji.py` with another schedule. A checkpoint from before the decline may be continued to any length.

Paper:    Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395, section 4.2
Command:  python -m vq.train recipes/stable_decay_emoji configs/recipes/stable_decay_emoji.py
Expected: PSNR 21.35 dB, SSIM 0.766, LPIPS-vgg 0.235, LPIPS-alex 0.048, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 101 s)
"""

_base_ = "emoji.py"

from vq.engine import WarmupStableDecay

options = dict(max_steps=500)
train_step = dict(
    schedule=dict(
        type=WarmupStableDecay, warmup_steps=25, decay_steps=options["max_steps"] // 5, final_factor=0.02
    )
)
