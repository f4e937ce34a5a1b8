r"""VQGAN with 8192 codes on SA-Med2D-20M (medical images), f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_sa_med2d_20m_ddp configs/vqgan/8192_sa_med2d_20m_ddp.py
Expected: not yet run
Needs:    data/sa_med2d_20m/SAMed2Dv1/, the unpacked archive (or option root); vq weights lpips inception;
          python -m vq.fid sa_med2d_20m (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.data import SAMed2D

options = dict(reference="sa_med2d_20m_val", root=None)  # root: the folder of the data
train_data = dict(dataset=dict(type=SAMed2D, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=SAMed2D, root=options["root"], split="val"))
