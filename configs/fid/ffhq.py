"""FFHQ at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid ffhq   (the page configs/fid/ffhq.py)
Expected: pretrained/fid/ffhq_val.npz, with --train ffhq_train.npz (not yet run: it needs FFHQ)
Needs:    data/ffhq/images1024x1024 (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import FFHQ

options = dict(reference="ffhq_val", root=None, images=None)
train_data = dict(dataset=dict(type=FFHQ, root=options["root"], images=options["images"], split="train"))
val_data = dict(dataset=dict(type=FFHQ, root=options["root"], images=options["images"], split="val"))
