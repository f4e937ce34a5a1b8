"""CelebA at 256 px, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid celeba   (the page configs/fid/celeba.py)
Expected: pretrained/fid/celeba_val.npz, with --train celeba_train.npz (not yet run: it needs CelebA)
Needs:    data/celeba/{img_align_celeba,list_eval_partition.txt} (or --config-options root::FOLDER);
          vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import CelebA

options = dict(reference="celeba_val", root=None)
train_data = dict(dataset=dict(type=CelebA, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=CelebA, root=options["root"], split="val"))
