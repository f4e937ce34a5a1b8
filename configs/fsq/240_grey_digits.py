"""Finite scalar quantization with 8 x 6 x 5 = 240 codes on handwritten digits of one channel (grey), 28 px, f4.

It differs from configs/fsq/240_digits.py in the channels alone: the set and both networks declare one.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  python -m vq.train fsq/240_grey_digits configs/fsq/240_grey_digits.py
Expected: PSNR 24.01 dB, SSIM 0.942, codebook usage 97.9 %
          (measured here: 600 steps, seed 3407, 27 s on one CPU thread)
"""

_base_ = "fsq/240_digits.py"

train_data = dict(dataset=dict(channels=1))
val_data = dict(dataset=dict(channels=1))
tokenizer = dict(encoder=dict(image_channels=1), decoder=dict(image_channels=1))
