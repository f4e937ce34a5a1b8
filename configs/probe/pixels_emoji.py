"""Linear probe of pixels: the category of an emoji, from the mean of its patches of 8 x 8 pixels.

This is the baseline of configs/probe/emoji.py: what a linear layer knows without any tokenizer.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406; He et al. 2022, https://arxiv.org/abs/2111.06377
          (the probe); You et al. 2017, https://arxiv.org/abs/1708.03888 (LARS)
Command:  python -m vq.train probe/pixels_emoji configs/probe/pixels_emoji.py
          (other patches: --config-options patch_size:2)
Expected: top-1 67.0 %, class_mean_top1 24.4 %; 61.9 % of the validation set are people
          (measured here: 500 steps, seeds 0 to 2, benchmarks/results/2026-11-27_2cores_probe_emoji.json)
"""

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, ProbeEvaluator, ProbeStep, Trainer, WarmupCosine
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledPixels

options = dict(max_steps=500, patch_size=8)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="train"),
    transforms=[dict(type=Resize, size=64)],
    batch_size=256,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="val"),
    transforms=[dict(type=Resize, size=64)],
    batch_size=256,
    shuffle=False,
)

probe = dict(
    type=LinearProbe, features=dict(type=PooledPixels, patch_size=options["patch_size"]), num_classes=10
)

train_step = dict(type=ProbeStep, optimizer=dict(type=LARS, lr=1.6), schedule=dict(type=WarmupCosine))
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(type=ProbeEvaluator, every=250)
checkpointer = dict(type=Checkpointer, every=250, keep=2)
