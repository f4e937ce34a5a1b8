r"""VQGAN with 8192 codes on SATIN (satellite images), f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_satin_ddp configs/vqgan/8192_satin_ddp.py
Expected: not yet run
Needs:    data/satin/<sub-set>/*.parquet (or option root); pip install -e '.[data]'; vq weights lpips inception;
          python -m vq.fid satin (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.data import SATIN

options = dict(reference="satin_val", root=None)  # root: the folder of the data
train_data = dict(dataset=dict(type=SATIN, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=SATIN, root=options["root"], split="val"))
