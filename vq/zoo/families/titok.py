"""TiTok: images as 32 to 256 tokens without positions; two-stage models, and later single-stage ones."""

from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.families.maskgit import decoder_section

HEAD_DIM = 64
"""The channels of an attention head in all published models. They cannot be read from the weights."""
SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}
"""The width and depth of the transformers, by the letter in the names of the models."""


def titok(
    *,
    encoder: tuple[int, int],
    decoder: tuple[int, int],
    codes: int,
    dim: int,
    num_latents: int,
    image_size: int = 256,
    patch_size: int = 16,
    two_stage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The section `tokenizer` of a TiTok model, as plain data.

    Args:
        encoder: The width and depth of the encoder's transformer.
        decoder: The width and depth of the decoder's transformer.
        codes: The size of the codebook.
        dim: The dimension of the codes.
        num_latents: The number of tokens of an image.
        image_size: The height and width of the images.
        patch_size: The height and width of a patch.
        two_stage: For a model of two stages, the number of MaskGIT's codes as `num_codes`, and its decoder; else None.
    """
    patches = {"type": "vq.layers.PixelPatches", "size": patch_size}
    shared = {"image_size": image_size, "num_latents": num_latents}
    ends = {"in_channels": dim, **shared, "transformer": _transformer(*decoder)}
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {
            "type": "vq.networks.TiTokEncoder",
            "patches": patches,
            "transformer": _transformer(*encoder),
            "out_channels": dim,
            **shared,
            **({"reshaped": True} if two_stage else {}),
        },
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": codes, "dim": dim},
            "distance": {"type": f"vq.quantizers.{'Cosine' if two_stage else 'Euclidean'}Distance"},
        },
        "decoder": {"type": "vq.networks.TiTokCodeDecoder", **two_stage, **ends}
        if two_stage
        else {"type": "vq.networks.TiTokDecoder", "patches": dict(patches), **ends},
        "projection_kernel": None,
        "value_range": [0, 1],
    }


def _transformer(width: int, depth: int) -> dict[str, Any]:
    return {
        "type": "vq.layers.Transformer",
        "width": width,
        "depth": depth,
        "num_heads": width // HEAD_DIM,
        "norm_eps": 1e-5,
    }


def _scores(fid: float) -> tuple[Scores, ...]:
    return (
        Scores(
            values={"fid": fid},
            data="ImageNet val",
            source="bytedance/1d-tokenizer, README_TiTok.md",
            size=256,
            note="the set is not named in the table",
        ),
    )


def _two_stage(size: str, num_latents: int, fid: float, *, file: str, address: str) -> Model:
    pixels = decoder_section(latent=256, width=128, multipliers=(1, 1, 2, 2, 4), num_blocks=2)
    section = titok(
        encoder=SIZES[size],
        decoder=SIZES[size],
        codes=4096,
        dim=12,
        num_latents=num_latents,
        two_stage={"num_codes": 1024, "decoder": pixels},
    )
    return Model(
        name=f"{size}{num_latents}",
        config={"tokenizer": section},
        file=file,
        address=address,
        scores=_scores(fid),
    )


def _single_stage(size: str, num_latents: int, fid: float) -> Model:
    section = titok(encoder=SIZES[size], decoder=SIZES["l"], codes=8192, dim=64, num_latents=num_latents)
    name = f"{size}l{num_latents}_vq8k"
    return Model(
        name=name,
        config={"tokenizer": section},
        file=_FILE,
        address=f"hf://yucornetto/tokenizer_titok_{name}_imagenet",
        scores=_scores(fid),
    )


# The README loads these repositories by huggingface_hub's mixin, which reads a file of this name.
_FILE = "model.safetensors"

# TA-TiTok is left out: its decoder also takes the features of a text, which a tokenizer of images does not have.
FAMILY = Family(
    name="titok",
    title="TiTok",
    dialect="titok",
    paper="https://arxiv.org/abs/2406.07550",
    repository="bytedance/1d-tokenizer",
    licence="Apache-2.0",
    value_range=(0.0, 1.0),
    parity="recorded",
    models=(
        _two_stage("l", 32, 2.21, file="tokenizer_titok_l32.bin", address="hf://fun-research/TiTok"),
        _two_stage("b", 64, 1.70, file=_FILE, address="hf://yucornetto/tokenizer_titok_b64_imagenet"),
        _two_stage("s", 128, 1.71, file=_FILE, address="hf://yucornetto/tokenizer_titok_s128_imagenet"),
        _single_stage("b", 64, 2.06),
        _single_stage("b", 128, 1.49),
        _single_stage("s", 256, 1.03),
    ),
)
