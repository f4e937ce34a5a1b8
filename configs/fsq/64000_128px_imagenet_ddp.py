r"""FSQ with 8 x 8 x 8 x 5 x 5 x 5 = 64000 codes on ImageNet, f8, 128 px, without a discriminator.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              fsq/64000_128px_imagenet_ddp configs/fsq/64000_128px_imagenet_ddp.py
Expected: not yet run (from the published comparison: FID 24.81, L1 0.1812, LPIPS 0.1758, usage 0.9987;
          not comparable with vq.val: its L1 is of ImageNet-normalised pixels, its LPIPS of [0, 1] inputs,
          its FID of images that are not clamped, and its crops are centre crops)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; python tools/prepare_checkpoints.py lpips inception;
          python -m vq.fid configs/fsq/64000_128px_imagenet_ddp.py (the FID's reference)
"""

from torch.optim import Adam

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import Checkpointer, Constant, Evaluator, ReconstructionStep, Trainer
from vq.losses import L1Loss, LPIPSLoss
from vq.metrics import CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, Perplexity
from vq.networks import InceptionNetwork, VQVAEDecoder, VQVAEEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(image_size=128, max_steps=500_000)  # 100 epochs
image_size = options["image_size"]
codebook_size = 64000
network = dict(width=512, num_halvings=3, num_blocks=0)  # the bare strided CNN, f8

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.8, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=256,  # over all GPUs
    num_workers=8,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=256,
    num_workers=8,
    shuffle=False,
)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=VQVAEEncoder, **network),
    quantizer=dict(type=FiniteScalarQuantizer, levels=[8, 8, 8, 5, 5, 5]),
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
