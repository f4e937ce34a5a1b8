"""MaskGIT: its VQGAN, whose codes are the first targets of TiTok's training."""

from collections.abc import Sequence
from typing import Any

from vq.zoo.entry import Family, Model, Scores


def maskgit(
    *,
    codes: int = 1024,
    dim: int = 256,
    width: int = 128,
    multipliers: Sequence[int] = (1, 1, 2, 2, 4),
    num_blocks: int = 2,
) -> dict[str, Any]:
    """The section `tokenizer` of MaskGIT's VQGAN, as plain data; without arguments, the published one."""
    decoder = decoder_section(latent=dim, width=width, multipliers=multipliers, num_blocks=num_blocks)
    encoder = {k: v for k, v in decoder.items() if k not in ("type", "in_channels")}
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.MaskGITEncoder", "out_channels": dim, **encoder},
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": codes, "dim": dim},
            "distance": {"type": "vq.quantizers.EuclideanDistance"},
        },
        "decoder": decoder,
        "projection_kernel": None,
        "value_range": [0, 1],
    }


def decoder_section(
    *, latent: int, width: int, multipliers: Sequence[int], num_blocks: int
) -> dict[str, Any]:
    """The section of its decoder.

    Args:
        latent: The number of channels of its input.
        width: The number of channels for a multiplier of 1.
        multipliers: The widths of the resolutions in units of `width`, from the highest resolution to the lowest.
        num_blocks: The number of blocks at each resolution.
    """
    return {
        "type": "vq.networks.MaskGITDecoder",
        "in_channels": latent,
        "base_width": width,
        "multipliers": list(multipliers),
        "num_blocks": num_blocks,
    }


FAMILY = Family(
    name="maskgit",
    title="MaskGIT's VQGAN",
    dialect="maskgit",
    paper="https://arxiv.org/abs/2202.04200",
    repository="bytedance/1d-tokenizer",
    licence="Apache-2.0",
    value_range=(0.0, 1.0),
    parity="recorded",
    models=(
        Model(
            name="vqgan_f16_256",
            config={"tokenizer": maskgit()},
            file="maskgit-vqgan-imagenet-f16-256.bin",
            address="hf://fun-research/TiTok",
            scores=(
                Scores(
                    values={"fid": 2.28},
                    data="ImageNet val",
                    source="bytedance/1d-tokenizer, issue 5",
                    size=256,
                ),
                Scores(
                    values={"fid": 1.96, "psnr": 18.6, "ssim": 0.47, "codebook_usage": 0.45},
                    data="ImageNet val",
                    source="markweberdev/maskbit, README.md",
                    size=256,
                    note="the evaluator of MaskBit, with its own copy of the weights",
                ),
            ),
        ),
    ),
)
