"""Open-MAGVIT2: tokenizers without attention and without a codebook, whose codes are the signs of 14 or 18 channels."""

from collections.abc import Sequence
from typing import Any

from vq.zoo.entry import Family, Model, Scores

_SOURCE = "TencentARC/SEED-Voken, docs/Open-MAGVIT2.md and evaluation_image.py"
_IMAGENET, _COCO = "ImageNet val", "COCO"
_ZERO_SHOT = "not trained on this set"
_ORIGINAL = f"at the original size, padded to multiples of 16; {_ZERO_SHOT}"


def tokenizer(
    *,
    bits: int,
    multipliers: Sequence[int] = (1, 1, 2, 2, 4),
    width: int = 128,
    num_blocks: int = 4,
) -> dict[str, Any]:
    """The section `tokenizer` of a model, as plain data.

    Args:
        bits: The number of channels of a code.
        multipliers: The widths of the resolutions in units of `width`, from the highest resolution to the lowest.
        width: The number of channels for a multiplier of 1.
        num_blocks: The number of residual blocks at each resolution.
    """
    network = {"base_width": width, "multipliers": list(multipliers), "num_blocks": num_blocks}
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.OpenMAGVIT2Encoder", "out_channels": bits, **network},
        "quantizer": {"type": "vq.quantizers.LookupFreeQuantizer", "bits": bits},
        "decoder": {"type": "vq.networks.OpenMAGVIT2Decoder", "in_channels": bits, **network},
        "projection_kernel": None,
    }


def _scores(
    data: str, fid: float, psnr: float, ssim: float | None = None, *, size: int | None, note: str = ""
) -> Scores:
    values = {"fid": fid, "psnr": psnr}
    values |= {"codebook_usage": 1.0} if ssim is None else {"ssim_uniform": ssim}
    return Scores(
        values=values,
        data=data,
        source=_SOURCE,
        size=size,
        crop="centre" if size and data == _IMAGENET else None,
        reference=data,
        note=note,
    )


def _model(name: str, repository: str, *scores: Scores, resolution: int = 256, **sizes: Any) -> Model:
    return Model(
        name=name,
        config={"tokenizer": tokenizer(**sizes)},
        file=f"{name}.ckpt",
        address=f"hf://TencentARC/Open-MAGVIT2-Tokenizer-{repository}",
        resolution=resolution,
        scores=scores,
    )


FAMILY = Family(
    name="open_magvit2",
    title="Open-MAGVIT2",
    dialect="open_magvit2",
    paper="https://arxiv.org/abs/2409.04410",
    repository="TencentARC/SEED-Voken",
    licence="Apache-2.0",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model(
            "imagenet_128_L",
            "128-resolution",
            _scores(_IMAGENET, 1.18, 25.08, size=128),
            _scores(_IMAGENET, 0.34, 26.19, size=256, note="trained with 128 px"),
            resolution=128,
            bits=18,
            multipliers=(1, 2, 2, 4),
        ),
        _model("imagenet_256_L", "256-resolution", _scores(_IMAGENET, 1.17, 21.90, size=256), bits=18),
        _model(
            "pretrain256_16384",
            "16384-Pretrain",
            _scores(_IMAGENET, 2.55, 22.21, 0.62, size=256, note=_ZERO_SHOT),
            _scores(_COCO, 7.93, 22.21, 0.62, size=256, note=_ZERO_SHOT),
            _scores(_IMAGENET, 1.39, 21.74, 0.56, size=None, note=_ORIGINAL),
            _scores(_COCO, 6.65, 21.61, 0.57, size=None, note=_ORIGINAL),
            bits=14,
        ),
        _model(
            "pretrain256_262144",
            "262144-Pretrain",
            _scores(_IMAGENET, 1.67, 22.70, 0.64, size=256, note=_ZERO_SHOT),
            _scores(_COCO, 6.76, 22.31, 0.65, size=256, note=_ZERO_SHOT),
            _scores(_IMAGENET, 0.78, 22.24, 0.59, size=None, note=_ORIGINAL),
            _scores(_COCO, 5.10, 22.18, 0.60, size=None, note=_ORIGINAL),
            bits=18,
        ),
    ),
)
