"""A transformer with linear attention over patches of 8 pixels, 1024 codes, on 64 px emoji, f8.

Paper:    Yu et al. 2021, https://arxiv.org/abs/2110.04627, section 3.1;
          Qin et al. 2022, https://arxiv.org/abs/2210.10340
Command:  python -m vq.train vit/1024_linear_emoji configs/vit/1024_linear_emoji.py
Expected: PSNR 17.29 dB, SSIM 0.553, LPIPS-vgg 0.443, codebook usage 95 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 8 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "1024_emoji.py"

from vq.layers import LinearAttention

linear = dict(transformer=dict(attention=dict(type=LinearAttention)))
tokenizer = dict(encoder=linear, decoder=linear)
