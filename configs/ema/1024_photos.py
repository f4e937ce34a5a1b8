"""Vector quantization with 1024 EMA codes on 64 px crops of photographs, f8.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1
Command:  python -m vq.train ema/1024_photos configs/ema/1024_photos.py
Expected: PSNR 23.30 dB, SSIM 0.618, LPIPS-vgg 0.511, codebook usage 83 %
          (measured here: 1,000 steps, seed 3407, benchmarks/results/2026-11-21_2cores_quality.json;
           measured before the photographs moon and motorcycle, whose licence is not stated, left the training set)
"""

_base_ = "1024_emoji.py"

from vq.data import PhotoDataset, RandomHorizontalFlip

train_data = dict(
    dataset=dict(type=PhotoDataset, split="train", crop_size=64),
    transforms=[dict(type=RandomHorizontalFlip)],
)
val_data = dict(dataset=dict(type=PhotoDataset, split="val", crop_size=64), transforms=[])
