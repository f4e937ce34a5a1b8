"""R1: the discriminator's gradient at real images is kept small, every 16th step.

`configs/recipes/gan_emoji.py` with a penalty.

Paper:    Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, eq. 9, with gamma = 10;
          Karras et al. 2020, https://arxiv.org/abs/1912.04958, section 3.1, for every 16th step
Command:  python -m vq.train recipes/gan_r1_emoji configs/recipes/gan_r1_emoji.py
Expected: PSNR 20.97 dB, SSIM 0.752, LPIPS-vgg 0.250, LPIPS-alex 0.058, codebook usage 100 %
          (measured here: 600 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 3.9 min)
"""

_base_ = "gan_emoji.py"

from vq.losses import R1Penalty

train_step = dict(
    adversary=dict(
        penalties=dict(r1=dict(type=R1Penalty, every=16)),
        weights=dict(objective=1.0, r1=5.0),  # gamma / 2
    )
)
