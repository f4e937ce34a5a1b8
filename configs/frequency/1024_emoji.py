"""1024 codes for the frequencies of a transformer's features, from low to high, on 64 px emoji, f8.

Paper:    FrequencyTransformer v1 of the development log of vector_quants
Command:  python -m vq.train frequency/1024_emoji configs/frequency/1024_emoji.py
Expected: PSNR 18.24 dB, SSIM 0.617, LPIPS-vgg 0.418, codebook usage 100 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 7 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vit/1024_emoji.py"

from vq.layers import PixelPatches, RotaryPositions, Transformer
from vq.networks import FrequencyDecoder, FrequencyEncoder, ViTDecoder, ViTEncoder

network = dict(
    patches=dict(type=PixelPatches, size=8),  # 64 x 64 pixels become 64 indices in zigzag order
    transformer=dict(type=Transformer, width=128, depth=4, num_heads=4, positions=dict(type=RotaryPositions)),
)
tokenizer = dict(
    encoder=dict(type=FrequencyEncoder, encoder=dict(type=ViTEncoder, **network, out_channels=32)),
    decoder=dict(type=FrequencyDecoder, decoder=dict(type=ViTDecoder, **network, in_channels=32)),
)
