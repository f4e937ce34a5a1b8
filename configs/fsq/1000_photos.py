"""Finite scalar quantization with 8 x 5 x 5 x 5 = 1000 codes on 64 px crops of photographs, f8.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  python -m vq.train fsq/1000_photos configs/fsq/1000_photos.py
Expected: PSNR 23.48 dB, SSIM 0.638, LPIPS-vgg 0.499, codebook usage 69 %
          (measured here: 1,000 steps, seed 3407, benchmarks/results/2026-11-21_2cores_quality.json;
           measured before the photographs moon and motorcycle, whose licence is not stated, left the training set)
"""

_base_ = "1000_emoji.py"

from vq.data import PhotoDataset, RandomHorizontalFlip

train_data = dict(
    dataset=dict(type=PhotoDataset, split="train", crop_size=64),
    transforms=[dict(type=RandomHorizontalFlip)],
)
val_data = dict(dataset=dict(type=PhotoDataset, split="val", crop_size=64), transforms=[])
