r"""VQGAN with 8192 codes on LAION-Aesthetics, f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_laion_aesthetics_ddp configs/vqgan/8192_laion_aesthetics_ddp.py
Expected: not yet run
Needs:    data/laion_aesthetics/, the output of img2dataset (or option root); vq weights lpips inception;
          python -m vq.fid laion_aesthetics (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.data import LAIONAesthetics

options = dict(reference="laion_aesthetics_val", root=None)  # root: the folder of the data
train_data = dict(dataset=dict(type=LAIONAesthetics, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=LAIONAesthetics, root=options["root"], split="val"))
