"""Vector quantization with 256 EMA codes on handwritten digits, 32 px, f4: 64 tokens per digit.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1
Command:  python -m vq.train ema/256_digits configs/ema/256_digits.py
Expected: PSNR 25.77 dB, SSIM 0.953, LPIPS-vgg 0.042; a linear probe of the tokens knows 30.4 % of the digits
          (measured here: 500 steps, seed 3407, benchmarks/results/2026-11-27_semantic.json)
"""

_base_ = "1024_emoji.py"

from vq.data import DigitsDataset, ImageLoader, Resize

options = dict(max_steps=500, codebook_size=256)
train_data = dict(
    type=ImageLoader,
    dataset=dict(type=DigitsDataset, split="train"),
    transforms=[dict(type=Resize, size=32)],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=DigitsDataset, split="val"),
    transforms=[dict(type=Resize, size=32)],
    batch_size=32,
    shuffle=False,
)
tokenizer = dict(encoder=dict(widths=(32, 64)), decoder=dict(widths=(32, 64)))
