"""ImageNet at 256 px with the crop of ADM, which LlamaGen and VAR use, as the reference of FID.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid imagenet_adm   (the page configs/fid/imagenet_adm.py)
Expected: pretrained/fid/imagenet_adm_val.npz (not yet run: it needs ImageNet)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG (or --config-options root::FOLDER); vq weights inception
"""

_base_ = "fid/imagenet.py"

from vq.data import ADMCenterCrop

options = dict(image_size=256, reference="imagenet_adm_val")
transforms = [dict(type=ADMCenterCrop, size=options["image_size"])]
val_data = dict(transforms=transforms)
