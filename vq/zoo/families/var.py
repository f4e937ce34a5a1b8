"""VAR: the multi-scale tokenizer of visual autoregressive modelling."""

from collections.abc import Mapping, Sequence
from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.vqgan import vqgan

SCALES = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}
"""The side of the images in pixels -> the sides of the scales in features, as VAR's options name them."""


def multi_scale(
    section: Mapping[str, Any], *, scales: Sequence[int], num_convs: int, kernel: int
) -> dict[str, Any]:
    """The section `tokenizer` of a VQGAN, with its quantizer applied at several scales.

    Args:
        section: The section of a VQGAN.
        scales: The heights and widths of the scales, from coarse to fine.
        num_convs: The number of convolutions that the scales share.
        kernel: The height and width of the convolutions beside the quantizer.
    """
    quantizer = {
        "type": "vq.quantizers.MultiScaleResidualQuantizer",
        "quantizer": section["quantizer"],
        "scales": list(scales),
        "num_convs": num_convs,
    }
    return {**section, "quantizer": quantizer, "projection_kernel": kernel}


def _model(name: str, resolution: int, scores: tuple[Scores, ...] = ()) -> Model:
    section = vqgan(width=160, multipliers=(1, 1, 2, 2, 4), codes=4096, dim=32, latent=32)
    return Model(
        name=name,
        config={"tokenizer": multi_scale(section, scales=SCALES[resolution], num_convs=4, kernel=3)},
        file="vae_ch160v4096z32.pth",
        address="hf://FoundationVision/var",
        resolution=resolution,
        scores=scores,
        options={} if resolution == 256 else {"resolution": resolution},
    )


FAMILY = Family(
    name="var",
    title="VAR",
    dialect="var",
    paper="https://arxiv.org/abs/2404.02905",
    repository="FoundationVision/VAR",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model(
            "vae_ch160v4096z32",
            256,
            (
                Scores(
                    values={"fid": 2.70},
                    data="ImageNet val",
                    source="openai/guided-diffusion, issue 161",
                    size=256,
                    crop="adm",
                    note="the evaluator of ADM; measured by a user who expected 0.92",
                ),
            ),
        ),
        _model("vae_ch160v4096z32_512", 512),
    ),
)
