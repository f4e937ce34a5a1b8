"""Finite scalar quantization with 1000 codes and noise dropout on 64 px emoji, f8.

In training half of the images get uniform noise of the width of a step instead of rounded channels.

Paper:    Parker et al. 2024, https://arxiv.org/abs/2411.19842, section 3.2
Command:  python -m vq.train fsq/1000_noise_emoji configs/fsq/1000_noise_emoji.py
Expected: PSNR 21.03 dB, SSIM 0.733, LPIPS-vgg 0.313, codebook usage 94 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "fsq/1000_emoji.py"

tokenizer = dict(quantizer=dict(noise_rate=0.5))
