"""FSQ with 240 codes for the frequencies of a network's features, from low to high, on handwritten digits, 28 px, f4.

Paper:    FrequencyTransformer v1 of the development log of vector_quants, with convolutions
Command:  python -m vq.train frequency/240_digits configs/frequency/240_digits.py
Expected: PSNR 23.41 dB, SSIM 0.936, codebook usage 98.8 %
          (measured here: 600 steps, seed 3407, 2026-11-27, 1 thread of a CPU that other programs use too, 50 s)
"""

_base_ = "fsq/240_digits.py"

from vq.networks import FrequencyDecoder, FrequencyEncoder, StridedCNNDecoder, StridedCNNEncoder

network = dict(widths=(32, 64), num_blocks=1)  # that of the base page
tokenizer = dict(
    encoder=dict(type=FrequencyEncoder, encoder=dict(type=StridedCNNEncoder, **network)),
    decoder=dict(type=FrequencyDecoder, decoder=dict(type=StridedCNNDecoder, **network)),
)
