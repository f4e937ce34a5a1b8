"""LlamaGen: VQ-16 and VQ-8, and the transformers over their indices."""

from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.vqgan import vqgan

_HUB = "hf://FoundationVision/LlamaGen"
_HUB_OF_TEXT = "hf://peizesun/llamagen_t2i"
_README = "FoundationVision/LlamaGen, README.md"
_ISSUE = "FoundationVision/LlamaGen, issue 34"
_F8, _F16 = (1, 2, 2, 4), (1, 1, 2, 2, 4)

GPT_SIZES: dict[str, dict[str, int]] = {
    "B": {"width": 768, "depth": 12, "num_heads": 12, "hidden": 2048},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "hidden": 2816},
    "XL": {"width": 1280, "depth": 36, "num_heads": 20, "hidden": 3584},
    "XXL": {"width": 1536, "depth": 48, "num_heads": 24, "hidden": 4096},
    "3B": {"width": 3200, "depth": 24, "num_heads": 32, "hidden": 8704},
}
"""The sizes of the published class-conditional transformers."""


def gpt(
    *,
    width: int,
    depth: int,
    num_heads: int,
    hidden: int,
    image_size: int,
    codes: int = 16384,
    classes: int = 1000,
) -> dict[str, Any]:
    """The section `generator` of a class-conditional transformer, as plain data.

    Args:
        width: The number of channels of the tokens.
        depth: The number of blocks.
        num_heads: The number of attention heads.
        hidden: The inner width of the per-token MLP.
        image_size: The height and width in pixels of the images of its training, a multiple of 16.
        codes: The number of codes of its tokenizer.
        classes: The number of classes.
    """
    transformer = {"width": width, "depth": depth, "num_heads": num_heads, "hidden": hidden}
    style = {"type": "vq.generators.LlamaStyle", "class_key": False}
    return {
        "type": "vq.generators.TransformerGenerator",
        "transformer": {
            "type": "vq.generators.DecoderTransformer",
            **transformer,
            "style": style,
            "dropout": 0.1,
        },
        "vocabulary_size": codes,
        "num_classes": classes,
        "grid": [image_size // 16, image_size // 16],
        "class_dropout": 0.1,
    }


def _tokenizer(multipliers: tuple[int, ...]) -> dict[str, object]:
    section = vqgan(multipliers=multipliers, codes=16384, dim=8, latent=256, distance="CosineDistance")
    return {"tokenizer": section}


def _rfid(fid: float, size: int, note: str = "") -> Scores:
    return Scores(
        values={"fid": fid},
        data="ImageNet val",
        source=_README,
        size=size,
        reference="ImageNet val",
        note=note,
    )


def _generator(size: str, image_size: int, gfid: float) -> Model:
    return Model(
        name=f"c2i_{size}_{image_size}",
        config={"generator": gpt(**GPT_SIZES[size], image_size=image_size)},
        file=f"c2i_{size}_{image_size}.pt",
        address=_HUB,
        resolution=image_size,
        page=f"llamagen/c2i_{size}_imagenet_ddp" if image_size == 256 else None,
        tokenizer="llamagen/vq_ds16_c2i",
        dialect="llamagen_gpt",
        options={"image_size": image_size},
        scores=(
            Scores(
                values={"gfid": gfid},
                data="ImageNet",
                source=_README,
                size=256,
                note="50,000 samples, with guidance; the evaluator and the reference statistics of ADM",
            ),
        ),
    )


FAMILY = Family(
    name="llamagen",
    title="LlamaGen",
    dialect="llamagen",
    paper="https://arxiv.org/abs/2406.06525",
    repository="FoundationVision/LlamaGen",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        Model(
            name="vq_ds8_c2i",
            config=_tokenizer(_F8),
            file="vq_ds8_c2i.pt",
            address=_HUB,
            scores=(_rfid(0.59, 256),),
        ),
        Model(
            name="vq_ds16_c2i",
            config=_tokenizer(_F16),
            file="vq_ds16_c2i.pt",
            address=_HUB,
            page="llamagen/vqgan_imagenet_ddp",
            scores=(
                Scores(
                    values={"fid": 2.19, "psnr": 20.79, "ssim_uniform": 0.675},
                    data="ImageNet val",
                    source=f"{_README}; PSNR and SSIM {_ISSUE}",
                    size=256,
                    crop="adm",
                    reference="ImageNet val",
                ),
                _rfid(0.94, 384, "resized to 256 px for the FID"),
                _rfid(0.70, 512, "resized to 256 px for the FID"),
            ),
        ),
        Model(
            name="vq_ds16_t2i",
            config=_tokenizer(_F16),
            file="vq_ds16_t2i.pt",
            address=_HUB_OF_TEXT,
            scores=(
                Scores(
                    values={"fid": 2.47, "psnr": 20.65, "ssim_uniform": 0.54},
                    data="ImageNet val",
                    source="TencentARC/SEED-Voken, docs/IBQ.md",
                    size=256,
                ),
                Scores(
                    values={"fid": 8.40, "psnr": 20.28, "ssim_uniform": 0.55},
                    data="COCO",
                    source="TencentARC/SEED-Voken, docs/IBQ.md",
                    size=256,
                ),
            ),
        ),
        _generator("B", 256, 5.46),
        _generator("B", 384, 6.09),
        _generator("L", 256, 3.80),
        _generator("L", 384, 3.07),
        _generator("XL", 384, 2.62),
        _generator("XXL", 384, 2.34),
        _generator("3B", 384, 2.18),
    ),
)
