"""Residual VQ, four stages of 256 codes each, chosen by a beam search, on 64 px emoji, f8.

Paper:    Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941; Liu et al. 2015, https://arxiv.org/abs/1509.05195
Command:  python -m vq.train rvq/256x4_beam_emoji configs/rvq/256x4_beam_emoji.py
Expected: not yet run
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import EMACodebook, ReplaceDeadCodes, ResidualQuantizer, VectorQuantizer

options = dict(codebook_size=256)
stage = dict(
    type=VectorQuantizer,
    codebook=dict(type=EMACodebook, size=256, dim=16, revival=dict(type=ReplaceDeadCodes)),
)
tokenizer = dict(quantizer=dict(type=ResidualQuantizer, quantizers=[stage] * 4, beam_width=8))
