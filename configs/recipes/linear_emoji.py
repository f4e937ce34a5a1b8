"""A learning rate that falls linearly to the end of the run, as BERT's does.

`configs/recipes/emoji.py` with another schedule.

Paper:    Devlin et al. 2019, https://arxiv.org/abs/1810.04805, appendix A.2
Command:  python -m vq.train recipes/linear_emoji configs/recipes/linear_emoji.py
Expected: PSNR 20.83 dB, SSIM 0.745, LPIPS-vgg 0.259, LPIPS-alex 0.062, codebook usage 100 %
          (measured here: 500 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 91 s)
"""

_base_ = "emoji.py"

from vq.engine import WarmupLinear

train_step = dict(schedule=dict(type=WarmupLinear, warmup_steps=25, final_factor=0.02))
