"""The adversarial baseline: 256 codes on 32 px emoji, f4, L1, and from halfway on a PatchGAN with DiffAugment.

Every other adversarial page of this folder changes one thing of it.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1;
          Zhao et al. 2020, https://arxiv.org/abs/2006.10738, for DiffAugment
Command:  python -m vq.train recipes/gan_emoji configs/recipes/gan_emoji.py
Expected: PSNR 21.04 dB, SSIM 0.753, LPIPS-vgg 0.248, LPIPS-alex 0.049, codebook usage 100 %
          (measured here: 600 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 98 s)
"""

from torch.optim import Adam, AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import AdversarialStep, Adversary, Checkpointer, Constant, Evaluator, Trainer, WarmupCosine
from vq.layers import DiffAugment
from vq.losses import HingeObjective, L1Loss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import KMeansInit, LearnedCodebook, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(max_steps=600)
codebook_size, codebook_dim = 256, 16
network = dict(widths=(32, 64), num_blocks=1)  # two halvings: 32 x 32 pixels become 8 x 8 indices

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="train"),
    transforms=[dict(type=Resize, size=32)],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="val"),
    transforms=[dict(type=Resize, size=32)],
    batch_size=32,
    shuffle=False,
)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=StridedCNNEncoder, **network),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=LearnedCodebook,
            size=codebook_size,
            dim=codebook_dim,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        commitment_weight=0.25,
    ),
    decoder=dict(type=StridedCNNDecoder, **network),
)

train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0, adversarial=0.5),  # adversarial: the gain of the adaptive weight
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=25, final_factor=0.02),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, base_width=32, depth=2),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=1e-4, betas=(0.5, 0.9)),
        augmentation=dict(type=DiffAugment),
        schedule=dict(type=Constant),
        start_step=options["max_steps"] // 2,
    ),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=600,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=LPIPSMetric, network="alex"),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=600, keep=1)
