"""Category to emoji, frequency after frequency: a small GPT-2 over the 64 tokens of configs/frequency/1024_emoji.py.

The encoder of that tokenizer arranges frequencies in zigzag order, row by row, from low to high. The generator's order
"raster" therefore visits frequencies from low to high; its order "zigzag" is for grids that are the spectrum itself.
Neighbours in a row are not neighbours in frequency, hence learned positions instead of rotary ones.

Paper:    development log of vector_quants (FreqTransformer); Radford et al. 2019 (GPT-2)
Command:  python -m vq.train frequency/1024_emoji configs/frequency/1024_emoji.py
          python -m vq.tokenize frequency/1024_emoji --train
          python -m vq.tokenize frequency/1024_emoji
          python -m vq.train ar/frequency_emoji configs/ar/frequency_emoji.py
          python -m vq.generate ar/frequency_emoji --num-per-class 10
Expected: validation loss 6.21 nats per token after 500 steps, 7.62 at the end, where that of training is 2.29:
          it memorises its 3,655 training images, as llama_emoji does (measured here: 1,500 steps, 2026-11-28, 28 min on
          1 thread of a CPU that other programs used too)
"""

_base_ = "llama_emoji.py"

from vq.generators import GPT2Style

options = dict(max_steps=1500, it_state_dict="work_dirs/frequency/1024_emoji")
generator = dict(
    transformer=dict(style=dict(type=GPT2Style)),
    vocabulary_size=1024,
    order="raster",  # from low to high frequency, as explained above
)
