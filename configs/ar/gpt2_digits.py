"""Class to handwritten digit: a small GPT-2 over the 49 tokens of configs/fsq/240_digits.py.

Paper:    Radford et al. 2019 (GPT-2)
Command:  python -m vq.train fsq/240_digits configs/fsq/240_digits.py
          python -m vq.tokenize fsq/240_digits --train
          python -m vq.tokenize fsq/240_digits
          python -m vq.train ar/gpt2_digits configs/ar/gpt2_digits.py
          python -m vq.generate ar/gpt2_digits --num-per-class 10
Expected: not yet run
"""

_base_ = "llama_digits.py"

from vq.generators import GPT2Style

generator = dict(transformer=dict(style=dict(type=GPT2Style)))
