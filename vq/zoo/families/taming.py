"""VQGAN of taming-transformers: tokenizers by themselves, and inside the files of transformers over their indices.

The README also links transformers for ImageNet, CelebA-HQ, ADE20K and COCO-Stuff. They are not listed, since no public
config gives the shapes of their tokenizers.
"""

from collections.abc import Mapping
from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.vqgan import vqgan

_README = "CompVis/taming-transformers, README.md"
_FOLDER = "https://heibox.uni-heidelberg.de/d"
_FILE = "https://heibox.uni-heidelberg.de/f"


def gumbel(*, codes: int, dim: int, networks: Mapping[str, Any]) -> dict[str, Any]:
    """The section `tokenizer` of a VQGAN whose index is the argmax of a linear map.

    Args:
        codes: The number of codes.
        dim: The dimension of the codes.
        networks: The arguments of `vqgan` that describe the encoder and the decoder.
    """
    quantizer = {"type": "vq.quantizers.GumbelQuantizer", "size": codes, "dim": dim}
    return {**vqgan(codes=codes, dim=dim, **networks), "quantizer": quantizer}


def _f16(codes: int) -> dict[str, Any]:
    return {"tokenizer": vqgan(multipliers=(1, 1, 2, 2, 4), codes=codes, dim=256, latent=256)}


def _scores(fid: float, note: str = "") -> tuple[Scores, ...]:
    return (
        Scores(
            values={"fid": fid},
            data="ImageNet val",
            source=_README,
            size=256,
            reference="ImageNet val",
            note=f"torch-fidelity{note}",
        ),
    )


FAMILY = Family(
    name="taming",
    title="VQGAN (taming-transformers)",
    dialect="taming",
    paper="https://arxiv.org/abs/2012.09841",
    repository="CompVis/taming-transformers",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        Model(
            name="vqgan_imagenet_f16_1024",
            config=_f16(1024),
            file=None,
            address=f"{_FOLDER}/8088892a516d4e3baf92/",
            page="vqgan/1024_imagenet_ddp",
            scores=(
                *_scores(7.94),
                Scores(
                    values={"fid": 7.96, "psnr": 20.18, "ssim": 0.52},
                    data="ImageNet val",
                    source="markweberdev/maskbit, README.md",
                    size=256,
                    note="the evaluator of MaskBit",
                ),
            ),
        ),
        Model(
            name="vqgan_imagenet_f16_16384",
            config=_f16(16384),
            file=None,
            address=f"{_FOLDER}/a7530b09fed84f80a887/",
            page="vqgan/16384_imagenet_ddp",
            scores=_scores(4.98),
        ),
        Model(
            name="vqgan_gumbel_f8",
            config={
                "tokenizer": gumbel(
                    codes=8192, dim=256, networks={"multipliers": (1, 1, 2, 4), "latent": 256}
                )
            },
            file=None,
            address=f"{_FOLDER}/2e5662443a6b4307b470/",
            dialect="taming_gumbel",
            scores=_scores(1.49, "; the model samples its indices in eval too"),
        ),
        Model(
            name="coco_8k",
            config=_f16(8192),
            file="coco_epoch117.ckpt",
            address=f"{_FILE}/78dea9589974474c97c1/",
        ),
        Model(
            name="coco_openimages_8k",
            config=_f16(8192),
            file="coco_oi_epoch12.ckpt",
            address=f"{_FILE}/461d9a9f4fcf48ab84f4/",
        ),
        Model(
            name="sflckr",
            config=_f16(1024),
            file="last.ckpt",
            address=f"{_FOLDER}/73487ab6e5314cb5adba/",
        ),
        Model(name="ffhq", config=_f16(1024), file=None, address="https://k00.fr/yndvfu95"),
        Model(name="faceshq", config=_f16(1024), file=None, address="https://k00.fr/qqfl2do8"),
        Model(name="drin", config=_f16(1024), file=None, address="https://k00.fr/39jcugc5"),
    ),
)
