"""Residual VQ, four stages of 256 codes each, chosen by a beam search, on 64 px emoji, f8.

Paper:    Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941; Liu et al. 2015, https://arxiv.org/abs/1509.05195
Command:  python -m vq.train rvq/256x4_beam_emoji configs/rvq/256x4_beam_emoji.py
Expected: PSNR 24.15 dB, SSIM 0.837, LPIPS-vgg 0.220, codebook usage 100 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 6 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import EMACodebook, ReplaceDeadCodes, ResidualQuantizer, VectorQuantizer

options = dict(codebook_size=256)
stage = dict(
    type=VectorQuantizer,
    codebook=dict(type=EMACodebook, size=256, dim=16, revival=dict(type=ReplaceDeadCodes)),
)
tokenizer = dict(quantizer=dict(type=ResidualQuantizer, quantizers=[stage] * 4, beam_width=8))
