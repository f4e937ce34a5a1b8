"""The league on 64 px emoji: every quantizer with the same networks, data, losses, budget and seeds.

Command:  python -m vq.compare configs/compare/emoji.py [--seeds 0 1 2] [--only NAME ...]
Expected: docs/league.md (measured here).
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import MSELoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, MSEMetric, Perplexity
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import (
    EMACodebook,
    FiniteScalarQuantizer,
    KMeansInit,
    LearnedCodebook,
    ReplaceDeadCodes,
    UniformInit,
    VectorQuantizer,
)
from vq.tokenizers import ImageTokenizer

network = dict(widths=(32, 64, 128), num_blocks=1)  # f8: 64 x 64 pixels become 8 x 8 tokens
size, dim = 256, 16
codes = dict(size=size, dim=dim)

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

contestants = dict(
    vq_uniform=dict(
        type=VectorQuantizer, codebook=dict(type=LearnedCodebook, init=dict(type=UniformInit), **codes)
    ),
    vq_kmeans=dict(
        type=VectorQuantizer, codebook=dict(type=LearnedCodebook, init=dict(type=KMeansInit), **codes)
    ),
    ema=dict(type=VectorQuantizer, codebook=dict(type=EMACodebook, **codes)),
    ema_revival=dict(
        type=VectorQuantizer, codebook=dict(type=EMACodebook, revival=dict(type=ReplaceDeadCodes), **codes)
    ),
    fsq=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5)),
)
tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=StridedCNNEncoder, **network),
    quantizer=contestants["fsq"],  # replaced by each contestant in turn
    decoder=dict(type=StridedCNNDecoder, **network),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(mse=dict(type=MSELoss)),
    weights=dict(mse=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=20, final_factor=0.02),
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=400)

evaluator = dict(
    type=Evaluator,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=CodebookUsage, codebook_size=240),  # each contestant's own size is filled in
        dict(type=Perplexity, codebook_size=240),
    ],
)
checkpointer = dict(type=Checkpointer, every=400)
