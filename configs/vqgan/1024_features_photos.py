r"""VQGAN with 1024 codes on 64 px crops of photographs, f8; its discriminator judges a frozen network's features.

`configs/vqgan/1024_photos.py` with StyleGAN-T's discriminator; the frozen network is EfficientNet-Lite0, whose
weights come in a package. For DINO as published: network=dict(type=TimmViTFeatures), and width=384.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1;
          Sauer et al. 2023, https://arxiv.org/abs/2301.09515, section 3.2
Command:  python -m vq.train vqgan/1024_features_photos configs/vqgan/1024_features_photos.py
Expected: PSNR 23.48 dB, SSIM 0.629, LPIPS-vgg 0.498, codebook usage 79 %
          (measured: 1,000 steps, seed 3407, 1 thread; without a discriminator 23.49 dB, 0.631, 0.497, 78 %: in
          500 steps at this size it changes little, whichever it is)
"""

from torch.optim import Adam, AdamW

from vq.data import ImageLoader, PhotoDataset, RandomHorizontalFlip
from vq.engine import AdversarialStep, Adversary, Checkpointer, Constant, Evaluator, Trainer, WarmupCosine
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import DINODiscriminator, EfficientNetLite0, StridedCNNDecoder, StridedCNNEncoder
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
    weights=dict(
        l1=1.0, lpips=0.1, quantizer=1.0, adversarial=0.3
    ),  # the last one: the adaptive weight's gain
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=DINODiscriminator, network=dict(type=EfficientNetLite0, size=64), width=64),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=5e-4, betas=(0.5, 0.9)),
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
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=500, keep=3)
