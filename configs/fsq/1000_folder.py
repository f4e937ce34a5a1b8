"""Finite scalar quantization with 8 x 5 x 5 x 5 = 1000 codes on your own folder of images, f8, 64 px.

The images are read as by configs/ema/1024_folder.py, which lists the options; docs/own_pictures.md.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  vq train mine fsq/1000_folder --config-options root::my_pictures
          (the page is configs/fsq/1000_folder.py)
Expected: not yet run
Needs:    a folder of images
"""

_base_ = "ema/1024_folder.py"

from vq.quantizers import FiniteScalarQuantizer

options = dict(codebook_size=1000)  # the product of the levels
tokenizer = dict(quantizer=dict(type=FiniteScalarQuantizer, levels=[8, 5, 5, 5]))
