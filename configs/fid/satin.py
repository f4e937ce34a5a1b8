"""SATIN (satellite and aerial images) at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid satin   (the page configs/fid/satin.py)
Expected: pretrained/fid/satin_val.npz, with --train satin_train.npz (not yet run: it needs SATIN)
Needs:    data/satin/<sub-set>/*.parquet (or --config-options root::FOLDER); pip install -e '.[data]';
          vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import SATIN

options = dict(reference="satin_val", root=None)
train_data = dict(dataset=dict(type=SATIN, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=SATIN, root=options["root"], split="val"))
