"""A learning rate that drops to a tenth at 60 % and again at 85 % of the run, as ResNet's and Open-MAGVIT2's do.

`configs/recipes/emoji.py` with another schedule.

Paper:    He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2
Command:  python -m vq.train recipes/step_drop_emoji configs/recipes/step_drop_emoji.py
Expected: PSNR 20.88 dB, SSIM 0.746, LPIPS-vgg 0.253, LPIPS-alex 0.059, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 97 s)
"""

_base_ = "emoji.py"

from vq.engine import WarmupStepDrop

options = dict(max_steps=500)
train_step = dict(
    schedule=dict(
        type=WarmupStepDrop,
        drops=[options["max_steps"] * 60 // 100, options["max_steps"] * 85 // 100],
        drop_factor=0.1,
        warmup_steps=25,
    )
)
