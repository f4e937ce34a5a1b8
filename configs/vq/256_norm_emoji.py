"""Norm-preserving cosine quantization with 256 directions on 64 px emoji, f8: an experiment.

Each token also has the length of its vector in float32, so it costs 40 bits, not 8.

Paper:    Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842
Command:  python -m vq.train vq/256_norm_emoji configs/vq/256_norm_emoji.py
Expected: PSNR 21.27 dB, SSIM 0.744, LPIPS-vgg 0.305, codebook usage 100 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    NormPreservingQuantizer,
    ReplaceDeadCodes,
    VectorQuantizer,
)

options = dict(codebook_size=256)
directions = dict(
    type=VectorQuantizer,
    codebook=dict(type=EMACodebook, size=256, dim=16, revival=dict(type=ReplaceDeadCodes)),
    distance=dict(type=CosineDistance),
)
tokenizer = dict(quantizer=dict(type=NormPreservingQuantizer, quantizer=directions))
