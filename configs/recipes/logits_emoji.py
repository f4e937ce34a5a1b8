"""A perceptual loss on logits: the distance of what a classifier, EfficientNet-Lite0, says of both images.

`configs/recipes/emoji.py` with one more loss. The weights of the network come with a package.

Paper:    Weber et al. 2024 (MaskBit), https://arxiv.org/abs/2409.16211
Command:  python -m vq.train recipes/logits_emoji configs/recipes/logits_emoji.py
Expected: PSNR 20.72 dB, SSIM 0.739, LPIPS-vgg 0.256, LPIPS-alex 0.066, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 7.9 min)
"""

_base_ = "emoji.py"

from vq.losses import LogitsLoss
from vq.networks import EfficientNetLite0

train_step = dict(
    losses=dict(logits=dict(type=LogitsLoss, network=dict(type=EfficientNetLite0, size=32))),
    weights=dict(logits=0.02),
)
