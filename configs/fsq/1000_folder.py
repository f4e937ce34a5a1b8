"""Finite scalar quantization with 8 x 5 x 5 x 5 = 1000 codes on your own folder of images, f8, 64 px.

The images are read as by configs/ema/1024_folder.py, which lists the options; docs/own_pictures.md.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  vq train mine fsq/1000_folder --config-options root::my_pictures
          (the page is configs/fsq/1000_folder.py)
Expected: with max_steps:500, PSNR 18.81 dB, SSIM 0.558, LPIPS-vgg 0.424, codebook usage 52 %
          (measured here: 500 steps, seed 3407, 1 thread, on the set of docs/own_pictures.md)
Needs:    a folder of images
"""

_base_ = "ema/1024_folder.py"

from vq.quantizers import FiniteScalarQuantizer

options = dict(codebook_size=1000)  # the product of the levels
tokenizer = dict(quantizer=dict(type=FiniteScalarQuantizer, levels=[8, 5, 5, 5]))
