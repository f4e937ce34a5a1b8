r"""Linear probe: the class of an image of ImageNet, from the mean of the code vectors of its tokens.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406; He et al. 2022, https://arxiv.org/abs/2111.06377
          (the probe, and the rate of 0.1 per 256 images); You et al. 2017, https://arxiv.org/abs/1708.03888 (LARS)
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              probe/imagenet_ddp configs/probe/imagenet_ddp.py --config-options \
              it_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py \
              it_state_dict::work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer
"""

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import Checkpointer, ProbeEvaluator, ProbeStep, Trainer, WarmupCosine
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledCodes
from vq.tokenizers import pretrained_tokenizer

options = dict(
    image_size=256,
    max_steps=30_000,
    it_config=None,  # the page of the tokenizer; None takes that inside its weight file
    it_state_dict="work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp",
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size = options["image_size"]

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.8, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=4096,  # 512 on each of 8 GPUs
    num_workers=10,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=512,
    num_workers=5,
    shuffle=False,
)

tokenizer = dict(type=pretrained_tokenizer, weights=[options["it_state_dict"]], config=options["it_config"])
probe = dict(type=LinearProbe, features=dict(type=PooledCodes), num_classes=1000)

train_step = dict(type=ProbeStep, optimizer=dict(type=LARS, lr=1.6), schedule=dict(type=WarmupCosine))
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(type=ProbeEvaluator, every=5000)
checkpointer = dict(type=Checkpointer, every=1000, keep=2)
