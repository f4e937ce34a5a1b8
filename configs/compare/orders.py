r"""The order in which a transformer generates the 49 tokens of a digit: by frequency, by rows, or at random.

The same generator learns the same tokens in several orders. The score is the validation loss in nats per token, which
is the same likelihood of the same tokens for any order, so that the orders can be compared.

The default tokens are those of configs/frequency/240_digits.py, stored from low to high frequency; `spectrum_rows`
visits their spectrum row by row. With the option they are those of places in the image, and `spectrum_rows` is then
one more order without a meaning.

Command:  python -m vq.train frequency/240_digits configs/frequency/240_digits.py
          python -m vq.tokenize frequency/240_digits --train
          python -m vq.tokenize frequency/240_digits
          python -m vq.compare configs/compare/orders.py
          python -m vq.train fsq/240_digits configs/fsq/240_digits.py
          python -m vq.tokenize fsq/240_digits --train
          python -m vq.tokenize fsq/240_digits
          python -m vq.compare configs/compare/orders.py --name orders_places \
              --config-options it_state_dict::work_dirs/fsq/240_digits
Expected: frequencies: raster 3.58 nats per token, reversed -0.02, zigzag +0.04, random +0.05 +- 0.04,
          spectrum_rows -0.07 +- 0.03, in experiments/orders; places: raster 2.21, reversed -0.01, zigzag +0.05,
          random +0.27 +- 0.07, in experiments/orders_places (measured here, 2026-11-27 and 28, seeds 0 to 2)
"""

_base_ = "ar/llama_digits.py"

import random

from vq.engine import Comparison
from vq.generators import GPT2Style

options = dict(max_steps=600, it_state_dict="work_dirs/frequency/240_digits")
# Learned positions: neighbours in a row are not neighbours in every order.
generator = dict(transformer=dict(style=dict(type=GPT2Style), width=64, depth=3))

places = list(range(49))
low_to_high = sorted(places, key=lambda p: (p // 7 + p % 7, p // 7 if (p // 7 + p % 7) % 2 else p % 7))
rank = {place: number for number, place in enumerate(low_to_high)}  # where the token of a frequency is stored
contestants = dict(
    raster=dict(),
    reversed=dict(generator=dict(order=places[::-1])),
    zigzag=dict(generator=dict(order="zigzag")),
    spectrum_rows=dict(generator=dict(order=[rank[place] for place in places])),
    random=dict(generator=dict(order=random.Random(0).sample(places, 49))),
)
comparison = dict(
    type=Comparison,
    question="In which order should the tokens of a digit be generated?",
    baseline="raster",
    score="loss",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
