"""COCO 2017 at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid coco2017   (the page configs/fid/coco2017.py)
Expected: pretrained/fid/coco2017_val.npz, with --train coco2017_train.npz (not yet run: it needs COCO)
Needs:    data/coco/{train2017,val2017}/*.jpg (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import COCO

options = dict(reference="coco2017_val", root=None)
train_data = dict(dataset=dict(type=COCO, root=options["root"], year=2017, split="train"))
val_data = dict(dataset=dict(type=COCO, root=options["root"], year=2017, split="val"))
