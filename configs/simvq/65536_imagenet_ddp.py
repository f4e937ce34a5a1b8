r"""SimVQ with 65,536 codes of 128 on ImageNet, f16, 256 px.

Paper:    Zhu et al. 2024, https://arxiv.org/abs/2411.02038
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              simvq/65536_imagenet_ddp configs/simvq/65536_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import KMeansInit, ProjectedCodebook

options = dict(codebook_size=65536)
codebook = dict(type=ProjectedCodebook, size=options["codebook_size"], dim=128, init=dict(type=KMeansInit))
tokenizer = dict(quantizer=dict(codebook=codebook))
