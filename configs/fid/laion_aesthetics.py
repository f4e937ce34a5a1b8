"""LAION-Aesthetics at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid laion_aesthetics
          (the page configs/fid/laion_aesthetics.py)
Expected: pretrained/fid/laion_aesthetics_val.npz, with --train laion_aesthetics_train.npz
          (not yet run: it needs LAION-Aesthetics)
Needs:    data/laion_aesthetics, the output of img2dataset (or --config-options root::FOLDER);
          vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import LAIONAesthetics

options = dict(reference="laion_aesthetics_val", root=None)
train_data = dict(dataset=dict(type=LAIONAesthetics, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=LAIONAesthetics, root=options["root"], split="val"))
