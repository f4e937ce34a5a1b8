r"""VQGAN with 16384 codes of 256 on ImageNet, f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/16384_imagenet_ddp configs/vqgan/16384_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

options = dict(codebook_size=16384)
