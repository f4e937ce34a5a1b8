"""A page that trains in a second: shapes of 16 x 16, EMA codebook with every stateful part switched on."""

from torch.optim import AdamW

from vq.data import ImageLoader, ProceduralDataset, RandomHorizontalFlip
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import L1Loss
from vq.metrics import PSNR, CodebookUsage, Perplexity
from vq.networks import CNNDecoder, CNNEncoder
from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(num_workers=0, max_steps=8, batch_size=8, accumulate=1)
codebook_size, codebook_dim = 16, 4
network = dict(base_width=8, multipliers=(1, 2), num_blocks=1)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ProceduralDataset, num_images=64, image_size=16),
    transforms=[dict(type=RandomHorizontalFlip)],
    batch_size=options["batch_size"],
    num_workers=options["num_workers"],
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ProceduralDataset, num_images=13, image_size=16, seed=1),
    batch_size=4,
    shuffle=False,
)
tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=CNNEncoder, out_channels=8, **network),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=EMACodebook,
            size=codebook_size,
            dim=codebook_dim,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
    ),
    decoder=dict(type=CNNDecoder, in_channels=8, **network),
)
train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3),
    schedule=dict(type=WarmupCosine, warmup_steps=2),
    max_gradient_norm=1.0,
    weight_ema=0.9,
    accumulate=options["accumulate"],
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=2)
evaluator = dict(
    type=Evaluator,
    every=4,
    metrics=[
        dict(type=PSNR),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
    num_grid_images=4,
)
checkpointer = dict(type=Checkpointer, every=2)
