"""Vector quantization with 1024 codes learnt by gradient descent on 64 px emoji, f8.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, eq. 3
Command:  python -m vq.train vq/1024_emoji configs/vq/1024_emoji.py
Expected: PSNR 21.29 dB, SSIM 0.745, LPIPS-vgg 0.302, codebook usage 99 %
          (measured here: 1,000 steps, seed 3407, benchmarks/results/2026-11-21_2cores_quality.json)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import EfficientNetLite0, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import KMeansInit, LearnedCodebook, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(max_steps=1000, codebook_size=1024)
codebook_size, codebook_dim = options["codebook_size"], 16
network = dict(widths=(32, 64, 128), num_blocks=1)  # three halvings: 64 x 64 pixels become 8 x 8 indices

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
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="alex")),
    weights=dict(l1=1.0, lpips=0.1, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
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
        dict(type=FIDMetric, network=dict(type=EfficientNetLite0, size=64)),  # frechet[efficientnet_lite0-64]
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=500, keep=3)
