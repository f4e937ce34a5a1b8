"""A style loss: the distance of Gram matrices of features of AlexNet.

`configs/recipes/emoji.py` with one more loss. The weights of the network are those of LPIPS.

Paper:    Johnson et al. 2016, https://arxiv.org/abs/1603.08155, eq. 3 and 4
Command:  python -m vq.train recipes/gram_emoji configs/recipes/gram_emoji.py
Expected: PSNR 19.36 dB, SSIM 0.664, LPIPS-vgg 0.320, LPIPS-alex 0.032, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 9.4 min)
"""

_base_ = "emoji.py"

from vq.losses import GramLoss
from vq.networks import LPIPSNetwork

train_step = dict(
    losses=dict(gram=dict(type=GramLoss, network=dict(type=LPIPSNetwork, trunk="alex"))),
    weights=dict(gram=1e-4),
)
