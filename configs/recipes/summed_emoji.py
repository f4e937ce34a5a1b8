"""The norm of the VQ-VAE paper: a likelihood, which is a sum over pixels, and squared distances of whole vectors.

`configs/recipes/emoji.py` with the negative log-likelihood of a normal distribution with the variance 1, which is half
the squared error, and with the quantizer's loss times the 16 dimensions, over which it is a mean here.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, eq. 3
Command:  python -m vq.train recipes/summed_emoji configs/recipes/summed_emoji.py
Expected: PSNR 20.21 dB, SSIM 0.712, LPIPS-vgg 0.306, LPIPS-alex 0.082, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 77 s)
"""

_base_ = "emoji.py"

from torch.optim import AdamW

from vq.engine import ReconstructionStep, WarmupCosine
from vq.losses import MSELoss

train_step = dict(
    type=ReconstructionStep,
    losses=dict(mse=dict(type=MSELoss, mean_over="images")),
    weights=dict(mse=0.5, quantizer=16.0),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=25, final_factor=0.02),
    weight_ema=0.99,
)
