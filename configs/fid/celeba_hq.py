"""CelebA-HQ at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid celeba_hq   (the page configs/fid/celeba_hq.py)
Expected: pretrained/fid/celeba_hq_val.npz, with --train celeba_hq_train.npz (not yet run: it needs CelebA-HQ)
Needs:    data/celeba_hq in a layout of vq.data.CelebAHQ (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import CelebAHQ

options = dict(reference="celeba_hq_val", root=None, images=None)
train_data = dict(dataset=dict(type=CelebAHQ, root=options["root"], images=options["images"], split="train"))
val_data = dict(dataset=dict(type=CelebAHQ, root=options["root"], images=options["images"], split="val"))
