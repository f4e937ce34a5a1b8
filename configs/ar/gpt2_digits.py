"""Class to handwritten digit: a small GPT-2 over the 49 tokens of configs/fsq/240_digits.py.

Paper:    Radford et al. 2019 (GPT-2)
Command:  python -m vq.train fsq/240_digits configs/fsq/240_digits.py
          python -m vq.tokenize fsq/240_digits --train
          python -m vq.tokenize fsq/240_digits
          python -m vq.train ar/gpt2_digits configs/ar/gpt2_digits.py
          python -m vq.generate ar/gpt2_digits --num-per-class 10
Expected: validation loss 1.93 nats per token; a classifier that recognises 98.4 % of held-out real digits recognises
          98.0 % of 300 generated ones, cfg 2, top-k 50 (measured here: 1,500 steps, 2026-11-28, 5 min on 1 thread of a
          CPU that other programs use too, `python -m tools.judge_digits`)
"""

_base_ = "llama_digits.py"

from vq.generators import GPT2Style

generator = dict(transformer=dict(style=dict(type=GPT2Style)))
