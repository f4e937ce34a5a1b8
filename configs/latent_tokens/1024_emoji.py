"""A one-dimensional sequence of 32 tokens for each 64 px emoji, 1024 codes (TiTok).

Paper:    Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2
Command:  python -m vq.train latent_tokens/1024_emoji configs/latent_tokens/1024_emoji.py
Expected: PSNR 17.90 dB, SSIM 0.531, LPIPS-vgg 0.456, codebook usage 97.3 %; the mean colours of 32 blocks: 15.3 dB
          (measured here: 2000 steps, seed 3407, 2026-11-27, 24 min on 1 thread of a CPU that other programs use too)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.layers import PixelPatches, RotaryPositions, Transformer
from vq.losses import LPIPSLoss, MSELoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import LatentTokensDecoder, LatentTokensEncoder
from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(max_steps=2000, image_size=64)
codebook_size, codebook_dim = 1024, 12
num_latents = 32  # an image becomes 32 indices
patches = dict(type=PixelPatches, size=8)
transformer = dict(type=Transformer, width=128, depth=4, num_heads=4, positions=dict(type=RotaryPositions))

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="train"),
    transforms=[dict(type=Resize, size=options["image_size"])],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="val"),
    transforms=[dict(type=Resize, size=options["image_size"])],
    batch_size=32,
    shuffle=False,
)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=LatentTokensEncoder, patches=patches, transformer=transformer, num_latents=num_latents),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=EMACodebook,
            size=codebook_size,
            dim=codebook_dim,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        commitment_weight=0.25,
    ),
    decoder=dict(
        type=LatentTokensDecoder,
        patches=patches,
        transformer=transformer,
        num_latents=num_latents,
        image_size=options["image_size"],  # the decoder is made for one size
    ),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(mse=dict(type=MSELoss), lpips=dict(type=LPIPSLoss, network="alex")),
    weights=dict(mse=1.0, lpips=0.1, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.05),
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
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
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=500, keep=3)
