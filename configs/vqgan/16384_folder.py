"""VQGAN with 16384 codes of 256 on your own folder of images, f16, 256 px; its discriminator starts halfway.

The networks are those of configs/vqgan/16384_imagenet_ddp.py, and need a GPU. The images are read as by
configs/ema/1024_folder.py, which lists the options; docs/own_pictures.md.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  vq train mine vqgan/16384_folder --config-options root::my_pictures
          (the page is configs/vqgan/16384_folder.py)
Expected: not yet run
Needs:    a folder of images
"""

_base_ = "ema/1024_folder.py"

from torch.optim import Adam

from vq.engine import AdversarialStep, Adversary, Constant, WarmupCosine
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.networks import CNNDecoder, CNNEncoder, PatchDiscriminator
from vq.quantizers import LearnedCodebook, ReplaceDeadCodes, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(
    image_size=256,  # a multiple of 16
    channels=3,
    batch_size=12,
    max_steps=20_000,
    codebook_size=16384,
)
channels, max_steps = options["channels"], options["max_steps"]
rgb = {1: (0, 0, 0), 2: (0, 1, 1), 3: None}.get(channels, (0, 1, 2))  # the channels that LPIPS sees
network = dict(base_width=128, multipliers=(1, 1, 2, 2, 4), num_blocks=2, image_channels=channels)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=CNNEncoder, out_channels=256, **network),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=LearnedCodebook,
            size=options["codebook_size"],
            dim=256,
            init=dict(type=UniformInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        commitment_weight=0.25,
    ),
    decoder=dict(type=CNNDecoder, in_channels=256, **network),
)

train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="vgg", rgb=rgb)),
    # adversarial: the gain of the adaptive weight
    weights=dict(l1=1.0, lpips=1.0, quantizer=1.0, adversarial=0.8),
    optimizer=dict(type=Adam, lr=5.4e-5, betas=(0.5, 0.9)),
    schedule=dict(type=WarmupCosine, warmup_steps=max_steps // 20, final_factor=0.02),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, depth=3, image_channels=channels),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=5.4e-5, betas=(0.5, 0.9)),
        schedule=dict(type=Constant),
        start_step=max_steps // 2,
    ),
    max_gradient_norm=1.0,
    weight_ema=0.999,
)
