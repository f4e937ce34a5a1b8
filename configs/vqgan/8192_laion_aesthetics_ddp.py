r"""VQGAN with 8192 codes on LAION-Aesthetics, f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_laion_aesthetics_ddp configs/vqgan/8192_laion_aesthetics_ddp.py
Expected: not yet run
Needs:    data/laion_aesthetics/{train,val}/ with image files; vq weights lpips inception;
          python -m vq.fid configs/vqgan/8192_laion_aesthetics_ddp.py (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.data import ImageFolder

options = dict(reference="laion_aesthetics_val")
train_data = dict(dataset=dict(type=ImageFolder, root="data/laion_aesthetics/train"))
val_data = dict(dataset=dict(type=ImageFolder, root="data/laion_aesthetics/val"))
