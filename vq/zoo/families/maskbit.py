"""MaskBit: tokenizers with the networks of MaskGIT whose codes are signs, and VQGAN+, which has a codebook."""

from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.families.maskgit import maskgit

_SOURCE = "markweberdev/maskbit, README.md"


def vqgan_plus(*, codes: int, dim: int, strided: bool = True, **networks: Any) -> dict[str, Any]:
    """The section `tokenizer` of VQGAN+, as plain data.

    Args:
        codes: The size of the codebook.
        dim: The dimension of the codes.
        strided: Whether the encoder halves the height and width with convolutions, as all but MaskGIT's do.
        networks: The sizes of the networks, as `maskgit` takes them.
    """
    section = maskgit(codes=codes, dim=dim, **networks)
    return {**section, "encoder": {**section["encoder"], "strided": strided}}


def maskbit(*, bits: int, strided: bool = True, **networks: Any) -> dict[str, Any]:
    """The section `tokenizer` of MaskBit, as plain data.

    Args:
        bits: The number of channels of a code.
        strided: As for `vqgan_plus`.
        networks: As for `vqgan_plus`.
    """
    section = vqgan_plus(codes=2**bits, dim=bits, strided=strided, **networks)
    return {
        **section,
        "quantizer": {"type": "vq.quantizers.LookupFreeQuantizer", "bits": bits, "entropy_weight": 0.02},
    }


def _model(name: str, section: dict[str, Any], *scores: float, file: str | None) -> Model:
    values = dict(zip(("fid", "psnr", "ssim", "codebook_usage"), scores, strict=True))
    return Model(
        name=name,
        config={"tokenizer": section},
        file=file,
        address=f"hf://markweber/{name}",
        scores=(Scores(values=values, data="ImageNet val", source=_SOURCE, size=256, crop="centre"),),
    )


def _bits(bits: int, *scores: float) -> Model:
    name = f"maskbit_tokenizer_{bits}bit"
    return _model(name, maskbit(bits=bits), *scores, file=f"{name}.bin")


FAMILY = Family(
    name="maskbit",
    title="MaskBit and VQGAN+",
    dialect="maskbit",
    paper="https://arxiv.org/abs/2409.16211",
    repository="markweberdev/maskbit",
    licence="Apache-2.0",
    value_range=(0.0, 1.0),
    parity="recorded",
    models=(
        _bits(10, 1.76, 20.8, 0.53, 1.0),
        _bits(12, 1.52, 21.2, 0.55, 1.0),
        _bits(14, 1.37, 21.5, 0.56, 1.0),
        _bits(16, 1.29, 21.8, 0.58, 1.0),
        _bits(18, 1.16, 22.0, 0.59, 0.5),
        # The publisher names the files of the others, but not this one.
        _model("vqgan_plus_paper", vqgan_plus(codes=1024, dim=256), 1.67, 20.9, 0.53, 1.0, file=None),
        _model(
            "vqgan_plus_12bit",
            vqgan_plus(codes=4096, dim=64),
            1.39,
            21.0,
            0.55,
            1.0,
            file="vqgan_plus_12bit.bin",
        ),
        _model(
            "maskgit_tokenizer",
            vqgan_plus(codes=1024, dim=256, strided=False),
            1.96,
            18.6,
            0.47,
            0.45,
            file="maskgit_tokenizer.bin",
        ),
    ),
)
