"""COCO 2014 at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid coco2014   (the page configs/fid/coco2014.py)
Expected: pretrained/fid/coco2014_val.npz, with --train coco2014_train.npz (not yet run: it needs COCO)
Needs:    data/coco/{train2014,val2014}/*.jpg (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import COCO

options = dict(reference="coco2014_val", root=None)
train_data = dict(dataset=dict(type=COCO, root=options["root"], year=2014, split="train"))
val_data = dict(dataset=dict(type=COCO, root=options["root"], year=2014, split="val"))
