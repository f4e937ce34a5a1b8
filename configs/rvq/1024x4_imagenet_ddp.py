r"""Residual VQ, four stages over one shared codebook of 1024, on ImageNet, f16, 256 px.

Paper:    Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              rvq/1024x4_imagenet_ddp configs/rvq/1024x4_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes, ResidualQuantizer, VectorQuantizer

options = dict(codebook_size=1024)
quantizer = dict(
    type=VectorQuantizer,
    codebook=dict(
        type=EMACodebook,
        size=options["codebook_size"],
        dim=256,
        init=dict(type=KMeansInit),
        revival=dict(type=ReplaceDeadCodes),
    ),
    commitment_weight=0.25,
)
tokenizer = dict(quantizer=dict(type=ResidualQuantizer, quantizers=[quantizer], depth=4))
