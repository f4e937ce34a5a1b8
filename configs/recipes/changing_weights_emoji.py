"""A perceptual loss whose weight falls to 0 in the second half of the run.

`configs/recipes/emoji.py` with LPIPS, whose weight is a function of the step. AliTok removes LPIPS after its first
50,000 steps.

Paper:    Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1
Command:  python -m vq.train recipes/changing_weights_emoji configs/recipes/changing_weights_emoji.py
Expected: PSNR 20.72 dB, SSIM 0.735, LPIPS-vgg 0.261, LPIPS-alex 0.044, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 3.4 min)
"""

_base_ = "emoji.py"

from vq.losses import LPIPSLoss
from vq.quantizers import LinearAnnealing

options = dict(max_steps=500)
half = options["max_steps"] // 2
train_step = dict(
    losses=dict(lpips=dict(type=LPIPSLoss, network="alex")),
    weights=dict(lpips=dict(type=LinearAnnealing, first=0.3, last=0.0, start=half, steps=half)),
)
