"""Vector quantization with 1024 EMA codes on 64 px emoji, f8; its vectors also predict features of EfficientNet-Lite0.

A 1x1 convolution from the vectors before quantization to the features is trained too; it is not needed after the
training. The weights of the teacher come with a package.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1;
          Yao et al. 2025 (VA-VAE), https://arxiv.org/abs/2501.01423, section 3.2, for the alignment
Command:  python -m vq.train ema/1024_efficientnet_emoji configs/ema/1024_efficientnet_emoji.py
Expected: with 256 codes, 500 steps and weight 0.2, PSNR 19.39 dB, 0.28 dB less than without the alignment
          (measured here: seed 3407, benchmarks/results/2026-11-27_semantic.json)
"""

_base_ = "1024_emoji.py"

from vq.losses import FeatureAlignment
from vq.networks import EfficientNetTeacher

teacher = dict(type=EfficientNetTeacher, image_size=128)  # f16: 8 x 8 features of 112 channels
train_step = dict(
    losses=dict(features=dict(type=FeatureAlignment, teacher=teacher, source="latent", channels=16)),
    weights=dict(features=0.1),
)
