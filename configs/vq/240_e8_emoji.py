"""Spherical lattice quantization on 64 px emoji, f8: the codes are the 240 shortest vectors of the lattice E8.

The quantizer has no loss. A token costs 7.9 bits.

Paper:    Zhao et al. 2025, https://arxiv.org/abs/2512.14697, section 3.4
Command:  python -m vq.train vq/240_e8_emoji configs/vq/240_e8_emoji.py
Expected: PSNR 19.84 dB, SSIM 0.700, LPIPS-vgg 0.344, codebook usage 98 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import CosineDistance, FrozenCodebook, LatticeInit

options = dict(codebook_size=240)
tokenizer = dict(
    quantizer=dict(
        codebook=dict(type=FrozenCodebook, size=240, dim=8, init=dict(type=LatticeInit)),
        distance=dict(type=CosineDistance),
        commitment_weight=0.0,
    ),
)
