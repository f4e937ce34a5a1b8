"""Batches of 32, 128 and 512 by accumulation, over as many images, with and without a scaled rate; and warm-up.

Every contestant sees 16,000 images. Larger batches take fewer steps; `_scaled` multiplies the learning rate by the
square root of the ratio, the rule for Adam. On 32 px emoji, f4.

Command:  python -m vq.compare configs/compare/batch_size.py
Expected: batch_32 20.6 dB, double rate +0.5 +- 0.1, batch_128 -2.3 +- 0.4, batch_512 -5.6 +- 1.2;
          all rows in experiments/batch_size (measured here, 2026-11-27, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison

num_images, lr, warmup = 16_000, 3e-3, 0.05


def batches_of(size, lr=lr, warmup=warmup):
    """A contestant with batches of `size`, computed in parts of 32."""
    steps = num_images // size
    return {
        ".train_data.batch_size": size,
        ".train_step.accumulate": size // 32,
        ".train_step.optimizer.lr": lr,
        ".train_step.schedule.warmup_steps": int(warmup * steps),
        ".trainer.max_steps": steps,
        ".trainer.log_every": min(steps, 50),
        ".evaluator.every": steps,
        ".checkpointer.every": steps,
    }


contestants = dict(
    batch_32=batches_of(32),
    batch_32_no_warmup=batches_of(32, warmup=0.0),
    batch_32_long_warmup=batches_of(32, warmup=0.2),
    batch_32_half_rate=batches_of(32, lr=lr / 2),
    batch_32_double_rate=batches_of(32, lr=2 * lr),
    batch_128=batches_of(128),
    batch_128_scaled=batches_of(128, lr=2 * lr),
    batch_512=batches_of(512),
    batch_512_scaled=batches_of(512, lr=4 * lr),
    batch_512_scaled_long_warmup=batches_of(512, lr=4 * lr, warmup=0.2),
)
comparison = dict(
    type=Comparison,
    question="Does a large batch help when the number of images is equal?",
    baseline="batch_32",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
