r"""VQ with 1024 EMA codes, k-means initialization and revival of dead codes, on ImageNet, f16, 256 px.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              ema/1024_imagenet_ddp configs/ema/1024_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes

options = dict(codebook_size=1024)
codebook = dict(
    type=EMACodebook,
    size=options["codebook_size"],
    dim=256,
    init=dict(type=KMeansInit),
    revival=dict(type=ReplaceDeadCodes),
)
tokenizer = dict(quantizer=dict(codebook=codebook))
