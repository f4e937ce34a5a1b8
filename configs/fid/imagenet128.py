"""ImageNet at 128 px, as the reference of FID. Training images are cropped in the same way and are not augmented.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid imagenet128   (the page configs/fid/imagenet128.py)
Expected: pretrained/fid/imagenet128_val.npz, with --train imagenet128_train.npz (not yet run: it needs ImageNet)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "imagenet.py"

options = dict(image_size=128, reference="imagenet128_val")
