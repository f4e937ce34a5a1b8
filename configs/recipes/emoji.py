"""The baseline of the recipes: 256 codes learnt by gradient descent on 32 px emoji, f4, with L1 alone.

Every other page of this folder that is not adversarial changes one thing of it.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, eq. 3
Command:  python -m vq.train recipes/emoji configs/recipes/emoji.py
Expected: PSNR 20.80 dB, SSIM 0.742, LPIPS-vgg 0.259, LPIPS-alex 0.062, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 43 s)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import L1Loss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import KMeansInit, LearnedCodebook, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(max_steps=500)
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
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=25, final_factor=0.02),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=500,
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
checkpointer = dict(type=Checkpointer, every=500, keep=1)
