"""Vector quantization with 1024 codes that a transformer moves together (VQBridge) on 64 px emoji, f8.

Paper:    Chang et al. 2025 (FVQ), https://arxiv.org/abs/2509.10140
Command:  python -m vq.train simvq/1024_bridge_emoji configs/simvq/1024_bridge_emoji.py
Expected: not yet run
"""

_base_ = "vq/1024_emoji.py"

from vq.quantizers import BridgedCodebook, KMeansInit

tokenizer = dict(
    quantizer=dict(
        codebook=dict(type=BridgedCodebook, size=1024, dim=16, groups=64, init=dict(type=KMeansInit)),
    ),
)
