"""VQ-KD with 256 codes on handwritten digits, 28 px, f4: 49 tokens per digit; the teacher is EfficientNet-Lite0.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  python -m vq.train vqkd/256_digits configs/vqkd/256_digits.py
Expected: after 400 steps, teacher_cosine 0.140, codebook usage 89 %; a linear probe of the tokens knows 40.0 % of the
          digits (measured here: seed 3407, benchmarks/results/2026-11-27_semantic.json)
"""

_base_ = "256_emoji.py"

from vq.data import DigitsDataset, ImageLoader

options = dict(teacher_size=112)  # 7 x 7 features, as many as tokens
train_data = dict(type=ImageLoader, dataset=dict(type=DigitsDataset, split="train"), batch_size=32)
val_data = dict(type=ImageLoader, dataset=dict(type=DigitsDataset, split="val"), batch_size=32, shuffle=False)
tokenizer = dict(encoder=dict(patches=dict(size=4)))
