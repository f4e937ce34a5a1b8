"""CIFAR-10 at 32 px, as the reference of FID; the validation images are its test split.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid cifar10   (the page configs/fid/cifar10.py)
Expected: pretrained/fid/cifar10_val.npz, with --train cifar10_train.npz (not yet run: it needs CIFAR-10)
Needs:    data/torchvision/cifar-10-batches-py (or --config-options root::FOLDER download:True); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import TorchvisionDataset

options = dict(image_size=32, reference="cifar10_val", root=None, download=False)
cifar = dict(type=TorchvisionDataset, name="CIFAR10", root=options["root"], download=options["download"])
train_data = dict(dataset=dict(cifar, split="train"))
val_data = dict(dataset=dict(cifar, split="test"))
