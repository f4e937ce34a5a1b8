r"""VQGAN with 1024 codes of 256 on ImageNet, f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/1024_imagenet_ddp configs/vqgan/1024_imagenet_ddp.py
Expected: not yet run (published in the paper's repository: rFID 7.94, codebook usage about 45 %)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

options = dict(codebook_size=1024)
