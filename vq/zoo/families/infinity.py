"""Infinity: multi-scale tokenizers with the signs of 14 to 32 channels as codes.

infinity_vae_d64 is not listed: 2^64 codes do not fit indices of 64 bits with a sign.
"""

from collections.abc import Mapping
from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.vqgan import vqgan

_README = "FoundationVision/Infinity, README.md"
_SCALES = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
RESOLUTIONS = {256: 7, 512: 10, 1024: 13}
"""The side of square images in pixels -> how many of the scales they have."""


def tokenizer(*, bits: int, resolution: int, networks: Mapping[str, Any]) -> dict[str, Any]:
    """The section `tokenizer` of a model.

    Args:
        bits: The number of channels of a code.
        resolution: The height and width of the images in pixels, a key of `RESOLUTIONS`.
        networks: The arguments of `vqgan` that describe the encoder and the decoder.
    """
    section = vqgan(codes=2, dim=bits, **networks)
    # A tokenizer that halves the images three times, not four times, has scales of twice the size.
    unit = 2 ** (5 - len(networks["multipliers"]))
    quantizer = {
        "type": "vq.quantizers.MultiScaleResidualQuantizer",
        "quantizer": {"type": "vq.quantizers.BinarySphericalQuantizer", "bits": bits},
        "scales": [unit * side for side in _SCALES[: RESOLUTIONS[resolution]]],
        "mix": 0.0,
        "upsampling": "bilinear",
    }
    return {**section, "quantizer": quantizer, "projection_kernel": None}


def _models(
    file: str, bits: int, multipliers: tuple[int, ...], scores: Mapping[int, tuple[float, float]]
) -> tuple[Model, ...]:
    networks = {
        "multipliers": multipliers,
        "latent": bits,
        "attention": False,
    }
    return tuple(
        Model(
            name=file if resolution == 256 else f"{file}_{resolution}",
            config={"tokenizer": tokenizer(bits=bits, resolution=resolution, networks=networks)},
            file=f"{file}.pth",
            address="hf://FoundationVision/Infinity",
            resolution=resolution,
            scores=tuple(
                Scores(
                    values={"fid": fid, "psnr": psnr},
                    data="ImageNet val",
                    source=_README,
                    size=resolution,
                )
                for fid, psnr in [scores[resolution]]
            )
            if resolution in scores
            else (),
            options={} if resolution == 256 else {"resolution": resolution},
        )
        for resolution in RESOLUTIONS
    )


_F16, _F8 = (1, 2, 4, 4, 4), (1, 2, 4, 4)

FAMILY = Family(
    name="infinity",
    title="Infinity",
    dialect="infinity",
    paper="https://arxiv.org/abs/2412.04431",
    repository="FoundationVision/Infinity",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        *_models("infinity_vae_d16", 16, _F16, {256: (1.22, 20.9), 512: (0.31, 22.6)}),
        *_models("infinity_vae_d24", 24, _F16, {256: (0.75, 22.0), 512: (0.30, 23.5)}),
        *_models("infinity_vae_d32", 32, _F16, {256: (0.61, 22.7), 512: (0.23, 24.4)}),
        *_models("infinity_vae_d32reg", 32, _F16, {256: (0.75, 21.9), 512: (0.32, 23.6)}),
        *_models("infinity_vae_d56_f8_14_patchify", 14, _F8, {}),
    ),
)
