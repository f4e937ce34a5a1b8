"""A PatchGAN that smooths before it halves (BlurPool), so that it sees no aliasing.

`configs/recipes/gan_emoji.py` with another downsampling in the discriminator.

Paper:    Zhang 2019, https://arxiv.org/abs/1904.11486, section 3.2
Command:  python -m vq.train recipes/gan_blur_emoji configs/recipes/gan_blur_emoji.py
Expected: PSNR 20.77 dB, SSIM 0.744, LPIPS-vgg 0.260, LPIPS-alex 0.058, codebook usage 100 %
          (measured here: 600 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 6.9 min)
"""

_base_ = "gan_emoji.py"

train_step = dict(adversary=dict(discriminator=dict(downsampling="blur")))
