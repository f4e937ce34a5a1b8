"""Finite scalar perturbation (FSP) with 1000 codes on 64 px emoji, f8.

Paper:    Zhai et al. 2026, https://arxiv.org/abs/2602.17133, eq. 13 to 18
Command:  python -m vq.train fsq/1000_fsp_emoji configs/fsq/1000_fsp_emoji.py
Expected: PSNR 21.09 dB, SSIM 0.740, LPIPS-vgg 0.310, codebook usage 98 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "fsq/1000_emoji.py"

from vq.quantizers import ScalarPerturbationQuantizer

tokenizer = dict(quantizer=dict(type=ScalarPerturbationQuantizer, levels=(8, 5, 5, 5)))
