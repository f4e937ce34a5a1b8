"""Two levels of 512 codes, the fine level conditioned on the coarse one, on 64 px emoji, f4 and f8 (VQ-VAE-2).

Paper:    Razavi et al. 2019, https://arxiv.org/abs/1906.00446, section 3.1
Command:  python -m vq.train vqvae2/512_emoji configs/vqvae2/512_emoji.py
Expected: PSNR 24.93 dB, SSIM 0.848, LPIPS-vgg 0.216, codebook usage 88 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import MSELoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LevelUsage, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import VQVAEDecoder, VQVAEEncoder
from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import TwoLevelTokenizer

options = dict(max_steps=1000)
level_size, codebook_dim = 512, 32
codebook_size = 2 * level_size  # the top level's codes, then the bottom level's
# 64 x 64 pixels become 16 x 16 indices of the bottom level and 8 x 8 of the top level.
network = dict(width=64, num_blocks=2, block_width=32)
level_quantizer = dict(
    type=VectorQuantizer,
    codebook=dict(
        type=EMACodebook,
        size=level_size,
        dim=codebook_dim,
        init=dict(type=KMeansInit),
        revival=dict(type=ReplaceDeadCodes),
    ),
    commitment_weight=0.25,
)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="train"),
    transforms=[dict(type=Resize, size=64)],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="val"),
    transforms=[dict(type=Resize, size=64)],
    batch_size=32,
    shuffle=False,
)

tokenizer = dict(
    type=TwoLevelTokenizer,
    bottom_encoder=dict(type=VQVAEEncoder, num_halvings=2, **network),
    top_encoder=dict(type=VQVAEEncoder, num_halvings=1, in_channels=64, **network),
    top_quantizer=level_quantizer,
    bottom_quantizer=level_quantizer,
    top_decoder=dict(type=VQVAEDecoder, num_halvings=1, out_channels=64, **network),
    decoder=dict(type=VQVAEDecoder, num_halvings=2, **network),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(mse=dict(type=MSELoss)),
    weights=dict(mse=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0),
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
        dict(type=LevelUsage, codebook_sizes=dict(top=level_size, bottom=level_size)),
    ],
)
checkpointer = dict(type=Checkpointer, every=500, keep=3)
