r"""VQGAN with 1024 codes on 64 px crops of photographs, f8; its discriminator starts halfway.

Until then it trains as `configs/vq/1024_photos.py` does: the difference between the runs is the discriminator's effect.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1
Command:  python -m vq.train vqgan/1024_photos configs/vqgan/1024_photos.py
Expected: PSNR 23.52 dB, SSIM 0.627, LPIPS-vgg 0.4975, LPIPS-alex 0.252 (which it trains on), codebook usage 78 %
          (measured here: 1,000 steps, seed 3407, 1 thread; without the discriminator,
          .train_step.adversary.start_step:1000, 23.49 dB, 0.631, 0.4974, 0.255, 78 %;
          measured before the photographs moon and motorcycle, whose licence is not stated, left the training set)
"""

from torch.optim import Adam, AdamW

from vq.data import ImageLoader, PhotoDataset, RandomHorizontalFlip
from vq.engine import AdversarialStep, Adversary, Checkpointer, Constant, Evaluator, Trainer, WarmupCosine
from vq.layers import DiffAugment
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import KMeansInit, LearnedCodebook, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(max_steps=1000)
codebook_size, codebook_dim = 1024, 16
network = dict(widths=(32, 64, 128), num_blocks=1)  # three halvings: 64 x 64 pixels become 8 x 8 indices

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=PhotoDataset, split="train", crop_size=64),
    transforms=[dict(type=RandomHorizontalFlip)],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=PhotoDataset, split="val", crop_size=64),
    transforms=[],
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
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="alex")),
    # adversarial: the gain of the adaptive weight
    weights=dict(l1=1.0, lpips=0.1, quantizer=1.0, adversarial=0.25),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, base_width=32, depth=2),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=5e-5, betas=(0.5, 0.9)),
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
checkpointer = dict(type=Checkpointer, every=500, keep=3)
