"""SA-Med2D-20M (medical images) at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid sa_med2d_20m   (the page configs/fid/sa_med2d_20m.py)
Expected: pretrained/fid/sa_med2d_20m_val.npz, with --train sa_med2d_20m_train.npz (not yet run: it needs SA-Med2D-20M)
Needs:    data/sa_med2d_20m/SAMed2Dv1 (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import SAMed2D

options = dict(reference="sa_med2d_20m_val", root=None)
train_data = dict(dataset=dict(type=SAMed2D, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=SAMed2D, root=options["root"], split="val"))
