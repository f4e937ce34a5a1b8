"""Vector quantization with 1024 codes that the task alone trains (DiVeQ) on 64 px emoji, f8.

There is neither a codebook loss nor a commitment loss.

Paper:    Vali et al. 2025, https://arxiv.org/abs/2509.26469
Command:  python -m vq.train vq/1024_diveq_emoji configs/vq/1024_diveq_emoji.py
Expected: PSNR 21.32 dB, SSIM 0.740, LPIPS-vgg 0.307, codebook usage 99 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import DirectionalReparameterisation

tokenizer = dict(quantizer=dict(estimator=dict(type=DirectionalReparameterisation)))
train_step = dict(weights=dict(quantizer=0.0))
