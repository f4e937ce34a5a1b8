"""VQGAN with 1024 codes on 64 px crops of photographs, f8; its discriminator judges a frozen network's features.

`configs/vqgan/1024_photos.py` with the discriminator of StyleGAN-T. The frozen network is EfficientNet-Lite0, whose
weights come with a package; for DINO, as published, set network=dict(type=TimmViTFeatures) and width=384.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841, section 3.1;
          Sauer et al. 2023, https://arxiv.org/abs/2301.09515, section 3.2
Command:  python -m vq.train vqgan/1024_features_photos configs/vqgan/1024_features_photos.py
Expected: PSNR 23.48 dB, SSIM 0.629, LPIPS-vgg 0.498, codebook usage 79 %
          (measured here: 1,000 steps, seed 3407, 1 thread; without a discriminator 23.49 dB, 0.631, 0.497, 78 %: in
          500 steps at this size a discriminator of either kind changes little;
          measured before the photographs moon and motorcycle, whose licence is not stated, left the training set)
"""

_base_ = "1024_photos.py"

from torch.optim import Adam

from vq.engine import Adversary, Constant
from vq.losses import HingeObjective
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import DINODiscriminator, EfficientNetLite0

options = dict(max_steps=1000)
train_step = dict(
    weights=dict(adversarial=0.3),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=DINODiscriminator, network=dict(type=EfficientNetLite0, size=64), width=64),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=5e-4, betas=(0.5, 0.9)),
        schedule=dict(type=Constant),
        start_step=options["max_steps"] // 2,
    ),
)
evaluator = dict(
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=CodebookUsage, codebook_size=1024),
        dict(type=Perplexity, codebook_size=1024),
    ],
)
