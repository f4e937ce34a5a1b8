"""LeCAM: the discriminator's logits of each side stay near the running mean of the other side's.

`configs/recipes/gan_emoji.py` with a penalty.

Paper:    Tseng et al. 2021, https://arxiv.org/abs/2104.03310, eq. 4 and 5
Command:  python -m vq.train recipes/gan_lecam_emoji configs/recipes/gan_lecam_emoji.py
Expected: PSNR 21.04 dB, SSIM 0.753, LPIPS-vgg 0.249, LPIPS-alex 0.051, codebook usage 100 %
          (measured here: 600 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 3.8 min)
"""

_base_ = "gan_emoji.py"

from vq.losses import LeCAMPenalty

train_step = dict(
    adversary=dict(
        penalties=dict(lecam=dict(type=LeCAMPenalty)),
        weights=dict(objective=1.0, lecam=0.05),
    )
)
