"""CIFAR-100 at 32 px, as the reference of FID; the validation images are its test split.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid cifar100   (the page configs/fid/cifar100.py)
Expected: pretrained/fid/cifar100_val.npz, with --train cifar100_train.npz (not yet run: it needs CIFAR-100)
Needs:    data/torchvision/cifar-100-python (or --config-options root::FOLDER download:True); vq weights inception
"""

_base_ = "imagenet.py"

from vq.data import TorchvisionDataset

options = dict(image_size=32, reference="cifar100_val", root=None, download=False)
cifar = dict(type=TorchvisionDataset, name="CIFAR100", root=options["root"], download=options["download"])
train_data = dict(dataset=dict(cifar, split="train"))
val_data = dict(dataset=dict(cifar, split="test"))
