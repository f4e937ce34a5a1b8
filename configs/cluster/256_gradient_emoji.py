"""Gradient k-means with 256 codes on features of EfficientNet-Lite0, for 64 px emoji, f8.

The codes learn by gradient, and codes that are hardly used move to the nearest features, as in
configs/cluster/clip_8192_imagenet_ddp.py; they are compared by the Euclidean distance, as in
configs/cluster/256_emoji.py.

Paper:    Wang et al. 2024 (Cluster), https://arxiv.org/abs/2411.04406;
          Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139
Command:  python -m vq.train cluster/256_gradient_emoji configs/cluster/256_gradient_emoji.py
Expected: quantization error 2734, 0.581 of the variance; codebook usage 95 %, perplexity 173
          (measured here: 600 steps, seed 3407, 2026-11-28, 3 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "256_emoji.py"

from torch.optim import Adam

from vq.engine import WarmupCosine
from vq.quantizers import ClusteredCodebook, KMeansInit

options = dict(codebook_size=256)
tokenizer = dict(
    quantizer=dict(
        codebook=dict(
            type=ClusteredCodebook,
            size=options["codebook_size"],
            dim=112,
            anchor="closest",
            init=dict(type=KMeansInit),
        ),
    ),
)
train_step = dict(
    optimizer=dict(type=Adam, lr=0.3, betas=(0.5, 0.9)),  # the features have a deviation of about 6
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
)
