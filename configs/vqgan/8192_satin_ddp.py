r"""VQGAN with 8192 codes on SATIN (satellite images), f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_satin_ddp configs/vqgan/8192_satin_ddp.py
Expected: not yet run
Needs:    data/satin/{train,val}/ with image files; vq weights lpips inception;
          python -m vq.fid configs/vqgan/8192_satin_ddp.py (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.data import ImageFolder

options = dict(reference="satin_val")
train_data = dict(dataset=dict(type=ImageFolder, root="data/satin/train"))
val_data = dict(dataset=dict(type=ImageFolder, root="data/satin/val"))
