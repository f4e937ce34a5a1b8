r"""VQGAN with 8192 codes of 256 on ImageNet, f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_imagenet_ddp configs/vqgan/8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

from torch.optim import Adam

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import AdversarialStep, Adversary, Checkpointer, Constant, Evaluator, Trainer
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import CNNDecoder, CNNEncoder, InceptionNetwork, PatchDiscriminator
from vq.quantizers import LearnedCodebook, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(
    image_size=256,
    max_steps=260_000,
    codebook_size=8192,
    reference="imagenet_val",  # of the FID: the file in pretrained/fid
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size, codebook_size = options["image_size"], options["codebook_size"]
network = dict(base_width=128, multipliers=(1, 1, 2, 2, 4), num_blocks=2)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.8, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=96,  # over all GPUs
    num_workers=5,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=96,
    num_workers=5,
    shuffle=False,
)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=CNNEncoder, out_channels=256, **network),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(type=LearnedCodebook, size=codebook_size, dim=256, init=dict(type=UniformInit)),
        commitment_weight=0.25,
    ),
    decoder=dict(type=CNNDecoder, in_channels=256, **network),
)

train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="vgg")),
    weights=dict(l1=1.0, lpips=1.0, quantizer=1.0, adversarial=0.8),
    optimizer=dict(type=Adam, lr=5.4e-5, betas=(0.5, 0.9)),
    schedule=dict(type=Constant),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, depth=3),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=4.32e-4, betas=(0.5, 0.9)),
        schedule=dict(type=Constant),
    ),
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=10_000,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference=options["reference"]),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=10_000)
