"""A perceptual loss without learned weights: the distance of feature maps of EfficientNet-Lite0.

`configs/recipes/emoji.py` with one more loss. The weights of the network come with a package.

Paper:    Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1 with all weights 1
Command:  python -m vq.train recipes/features_emoji configs/recipes/features_emoji.py
Expected: PSNR 20.73 dB, SSIM 0.749, LPIPS-vgg 0.237, LPIPS-alex 0.058, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 12.3 min)
"""

_base_ = "emoji.py"

from vq.losses import FeatureLoss
from vq.networks import EfficientNetLite0

train_step = dict(
    losses=dict(features=dict(type=FeatureLoss, network=dict(type=EfficientNetLite0, size=64))),
    weights=dict(features=0.1),
)
