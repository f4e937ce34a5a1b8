"""ImageNet at 256 px, as the reference of FID. Training images are cropped in the same way and are not augmented.

Command:  torchrun --standalone --nproc-per-node=auto -m vq.fid imagenet   (the page configs/fid/imagenet.py)
Expected: pretrained/fid/imagenet_val.npz, with --train imagenet_train.npz (not yet run: it needs ImageNet)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG (or --config-options root::FOLDER); vq weights inception
"""

from vq.data import CenterCrop, ImageLoader, ImageNet, Resize
from vq.engine import Evaluator
from vq.metrics import FIDMetric
from vq.networks import InceptionNetwork

options = dict(
    image_size=256,
    reference="imagenet_val",
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
loader = dict(
    type=ImageLoader,
    transforms=[
        dict(type=Resize, size=options["image_size"]),
        dict(type=CenterCrop, size=options["image_size"]),
    ],
    batch_size=256,  # over all GPUs
    num_workers=10,
    shuffle=False,
)

train_data = dict(loader, dataset=dict(type=ImageNet, root=options["root"], split="train"))
val_data = dict(loader, dataset=dict(type=ImageNet, root=options["root"], split="val"))
evaluator = dict(
    type=Evaluator,
    metrics=[dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference=options["reference"])],
)
