"""Vector quantization with 1024 codes that a transformer moves together (VQBridge) on 64 px emoji, f8.

Paper:    Chang et al. 2025 (FVQ), https://arxiv.org/abs/2509.10140
Command:  python -m vq.train simvq/1024_bridge_emoji configs/simvq/1024_bridge_emoji.py
Expected: PSNR 21.25 dB, SSIM 0.736, LPIPS-vgg 0.310, codebook usage 75 %
          (measured here: 1,000 steps, seed 3407, 2026-11-28, 4 min on 1 thread of a CPU that other programs use too)
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import BridgedCodebook, KMeansInit

tokenizer = dict(
    quantizer=dict(
        codebook=dict(type=BridgedCodebook, size=1024, dim=16, groups=64, init=dict(type=KMeansInit)),
    ),
)
