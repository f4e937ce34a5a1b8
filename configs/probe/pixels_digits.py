"""Linear probe of pixels: which handwritten digit an image shows, from the mean of its patches of 4 x 4 pixels.

This is the baseline of configs/probe/digits.py: what a linear layer knows without any tokenizer.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406; He et al. 2022, https://arxiv.org/abs/2111.06377
          (the probe); You et al. 2017, https://arxiv.org/abs/1708.03888 (LARS)
Command:  python -m vq.train probe/pixels_digits configs/probe/pixels_digits.py
          (other patches: --config-options patch_size:2)
Expected: top-1 31.9 %, top-5 79.1 %; with patch_size:1 top-1 21.5 %
          (measured here: 500 steps, seeds 0 to 2, benchmarks/results/2026-11-27_2cores_probe_digits.json)
"""

from vq.data import DigitsDataset, ImageLoader
from vq.engine import Checkpointer, ProbeEvaluator, ProbeStep, Trainer, WarmupCosine
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledPixels

options = dict(max_steps=500, patch_size=4)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=DigitsDataset, split="train"),
    batch_size=256,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=DigitsDataset, split="val"),
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
