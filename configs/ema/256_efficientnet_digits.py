"""As configs/ema/256_digits.py; the vectors before quantization also predict features of EfficientNet-Lite0.

A 1x1 convolution from these vectors to the features is trained too; it is not needed after the training. The weights
of the teacher come with a package.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1;
          Yao et al. 2025 (VA-VAE), https://arxiv.org/abs/2501.01423, section 3.2, for the alignment
Command:  python -m vq.train ema/256_efficientnet_digits configs/ema/256_efficientnet_digits.py
Expected: PSNR 25.52 dB, SSIM 0.952, LPIPS-vgg 0.044; a linear probe of the tokens knows 34.9 % of the digits, and
          30.4 % without the alignment; with the seeds 1 and 2 the gain is larger (measured here: 500 steps,
          seed 3407, benchmarks/results/2026-11-27_semantic.json)
"""

_base_ = "1024_emoji.py"

from vq.data import DigitsDataset, ImageLoader, Resize
from vq.losses import FeatureAlignment
from vq.networks import EfficientNetTeacher

options = dict(max_steps=500, codebook_size=256)
teacher = dict(type=EfficientNetTeacher, image_size=128)  # f16: 8 x 8 features of 112 channels
train_data = dict(
    type=ImageLoader,
    dataset=dict(type=DigitsDataset, split="train"),
    transforms=[dict(type=Resize, size=32)],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=DigitsDataset, split="val"),
    transforms=[dict(type=Resize, size=32)],
    batch_size=32,
    shuffle=False,
)
tokenizer = dict(encoder=dict(widths=(32, 64)), decoder=dict(widths=(32, 64)))
train_step = dict(
    losses=dict(features=dict(type=FeatureAlignment, teacher=teacher, source="latent", channels=16)),
    weights=dict(features=0.1),
)
