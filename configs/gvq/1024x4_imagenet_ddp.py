r"""Grouped VQ, four groups over one shared codebook of 1024, on ImageNet, f16, 256 px.

Paper:    Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              gvq/1024x4_imagenet_ddp configs/gvq/1024x4_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import EMACodebook, KMeansInit, ProductQuantizer, ReplaceDeadCodes, VectorQuantizer

options = dict(codebook_size=1024)
quantizer = dict(
    type=VectorQuantizer,
    codebook=dict(
        type=EMACodebook,
        size=options["codebook_size"],
        dim=64,
        init=dict(type=KMeansInit),
        revival=dict(type=ReplaceDeadCodes),
    ),
    commitment_weight=0.25,
)
tokenizer = dict(quantizer=dict(type=ProductQuantizer, quantizers=[quantizer], groups=4))
