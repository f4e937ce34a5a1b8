"""FSQ with 4 x 4 x 4 x 4 = 256 codes on handwritten digits, as one index per token, as 2 of 16, or as 4 of 4 values.

The option `groups` changes only how a code is numbered, so all three are the same function with the same weights.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  python -m vq.train fsq/256_digits configs/fsq/256_digits.py
          python -m vq.train fsq/256_digits_2 configs/fsq/256_digits.py --config-options groups:2
          python -m vq.train fsq/256_digits_4 configs/fsq/256_digits.py --config-options groups:4
Expected: PSNR 23.54 dB, SSIM 0.936, codebook usage 78 %, or 100 % of the values of 2 or 4 groups
          (measured here: 600 steps, seed 3407, 2026-11-28, half a minute on 1 thread)
"""

_base_ = "240_digits.py"

from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, MSEMetric, Perplexity
from vq.quantizers import FiniteScalarQuantizer, ProductQuantizer

options = dict(groups=1)
channels = 4 // options["groups"]
part = dict(type=FiniteScalarQuantizer, levels=[4] * channels)
is_packed = options["groups"] == 1  # one index per token has no axis of parts
tokenizer = dict(
    quantizer=dict(type=ProductQuantizer, quantizers=[part], groups=options["groups"], is_packed=is_packed)
)
evaluator = dict(
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=CodebookUsage, codebook_size=4**channels),
        dict(type=Perplexity, codebook_size=4**channels),
    ],
)
