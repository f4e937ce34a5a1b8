"""Spherical lattice quantization on 64 px emoji, f8: the codes are the 196,560 shortest vectors of the Leech lattice.

The quantizer has no loss. A token costs 17.6 bits. The validation set has 22,656 tokens, so at most 12 % of the codes
can be used there.

Paper:    Zhao et al. 2025, https://arxiv.org/abs/2512.14697, section 3.4
Command:  python -m vq.train vq/196560_leech_emoji configs/vq/196560_leech_emoji.py
Expected: PSNR 21.24 dB, SSIM 0.756, LPIPS-vgg 0.297, codebook usage 2 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 13 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import CosineDistance, FrozenCodebook, LatticeInit

options = dict(codebook_size=196560)
tokenizer = dict(
    quantizer=dict(
        codebook=dict(type=FrozenCodebook, size=196560, dim=24, init=dict(type=LatticeInit)),
        distance=dict(type=CosineDistance),
        commitment_weight=0.0,
    ),
)
