"""Residual VQ with implicit neural codebooks (QINCo), four stages of 256 codes, on 64 px emoji, f8.

Paper:    Huijben et al. 2024, https://arxiv.org/abs/2401.14732
Command:  python -m vq.train rvq/256x4_qinco_emoji configs/rvq/256x4_qinco_emoji.py
Expected: PSNR 23.94 dB, SSIM 0.829, LPIPS-vgg 0.228, codebook usage 100 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 6 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import ImplicitResidualQuantizer, KMeansInit, LearnedCodebook, ReplaceDeadCodes

options = dict(codebook_size=256)
codebook = dict(
    type=LearnedCodebook,
    size=256,
    dim=16,
    init=dict(type=KMeansInit),
    revival=dict(type=ReplaceDeadCodes),
)
tokenizer = dict(
    quantizer=dict(type=ImplicitResidualQuantizer, codebooks=[codebook] * 4, hidden_dim=32, num_blocks=1)
)
