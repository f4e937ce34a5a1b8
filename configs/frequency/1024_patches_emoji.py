"""A transformer over patches of frequencies, from low to high, 1024 codes, on 64 px emoji, f8.

Paper:    FreqPatchEmbed v1 of the development log of vector_quants
Command:  python -m vq.train frequency/1024_patches_emoji configs/frequency/1024_patches_emoji.py
Expected: PSNR 11.38 dB, SSIM 0.262, LPIPS-vgg 0.690, codebook usage 81 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 7 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vit/1024_emoji.py"

from vq.layers import FrequencyPatches

# Each of the 8 x 8 vectors holds one frequency of 8 x 8 tiles. Others to try: FrequencyBandPatches (v2),
# FrequencyBlockPatches (v3), SpectrumPatches (v2 of the transformer).
frequencies = dict(patches=dict(type=FrequencyPatches, size=8))
tokenizer = dict(encoder=frequencies, decoder=frequencies)
