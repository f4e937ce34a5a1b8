r"""FSQ with 8 x 6 x 5 = 240 codes on ImageNet, f8, 128 px, without a discriminator.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              fsq/240_128px_imagenet_ddp configs/fsq/240_128px_imagenet_ddp.py
Expected: not yet run (published: FID 67.56, L1 0.2772, LPIPS 0.3227, usage 1; not comparable with vq.val, because
          they measure L1 on ImageNet-normalised pixels, LPIPS on inputs in [0, 1] and FID on unclamped images, and
          crop the centre)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid configs/fsq/240_128px_imagenet_ddp.py (the FID's reference)
"""

from math import prod

from torch.optim import Adam

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import Checkpointer, Constant, Evaluator, ReconstructionStep, Trainer
from vq.losses import L1Loss, LPIPSLoss
from vq.metrics import CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, Perplexity
from vq.networks import InceptionNetwork, VQVAEDecoder, VQVAEEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(
    image_size=128,
    max_steps=500_000,  # 100 epochs
    levels=[8, 6, 5],
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size, levels = options["image_size"], options["levels"]
codebook_size = prod(levels)
network = dict(width=512, num_halvings=3, num_blocks=0)  # the bare strided CNN, f8

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.8, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=256,  # over all GPUs
    num_workers=8,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=256,
    num_workers=8,
    shuffle=False,
)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=VQVAEEncoder, **network),
    quantizer=dict(type=FiniteScalarQuantizer, levels=levels),
    decoder=dict(type=VQVAEDecoder, **network),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="vgg")),
    weights=dict(l1=1.0, lpips=1.0, quantizer=1.0),
    optimizer=dict(type=Adam, lr=1e-4),
    schedule=dict(type=Constant),
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=10_000,
    metrics=[
        dict(type=L1Metric),
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference="imagenet128_val"),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=10_000)
