"""IBQ: tokenizers with the networks of VQGAN, whose codebooks of up to 2^18 codes are learned through the softmax."""

from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.vqgan import vqgan

_SOURCE = "TencentARC/SEED-Voken, docs/IBQ.md"


def with_index_backpropagation(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The section `tokenizer` of a VQGAN with the quantizer of IBQ in place of its own."""
    codebook = tokenizer["quantizer"]["codebook"]
    quantizer = {
        "type": "vq.quantizers.IndexBackpropagationQuantizer",
        "size": codebook["size"],
        "dim": codebook["dim"],
    }
    return {**tokenizer, "quantizer": quantizer}


def _model(name: str, codes: int, repository: str, file: str, *scores: Scores) -> Model:
    section = vqgan(multipliers=(1, 1, 2, 2, 4), num_blocks=4, codes=codes, dim=256, latent=256)
    return Model(
        name=name,
        config={"tokenizer": with_index_backpropagation(section)},
        file=file,
        address=f"hf://TencentARC/{repository}",
        scores=scores,
    )


def _on_imagenet(codes: int, fid: float, lpips: float, usage: float) -> Model:
    scores = Scores(
        values={"fid": fid, "lpips": lpips, "codebook_usage": usage},
        data="ImageNet val",
        source=_SOURCE,
        size=256,
    )
    return _model(
        f"imagenet256_{codes}", codes, f"IBQ-Tokenizer-{codes}", f"imagenet256_{codes}.ckpt", scores
    )


def _pretrained(codes: int, *rows: tuple[str, float, float, float]) -> Model:
    scores = [
        Scores(
            values={"fid": fid, "psnr": psnr, "ssim_uniform": ssim},
            data=data,
            source=_SOURCE,
            size=256,
            note="not trained on this set",
        )
        for data, fid, psnr, ssim in rows
    ]
    return _model(
        f"pretrain256_{codes}",
        codes,
        f"IBQ-Tokenizer-{codes}-Pretrain",
        f"IBQ_pretrain_{codes}.ckpt",
        *scores,
    )


FAMILY = Family(
    name="ibq",
    title="IBQ",
    dialect="ibq",
    paper="https://arxiv.org/abs/2412.02692",
    repository="TencentARC/SEED-Voken",
    licence="Apache-2.0",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _on_imagenet(1024, 2.24, 0.2580, 0.99),
        _on_imagenet(8192, 1.87, 0.2437, 0.98),
        _on_imagenet(16384, 1.37, 0.2235, 0.96),
        _on_imagenet(262144, 1.00, 0.2030, 0.84),
        _pretrained(16384, ("ImageNet val", 2.06, 22.01, 0.61), ("COCO", 7.67, 21.58, 0.62)),
        _pretrained(262144, ("ImageNet val", 1.53, 22.69, 0.64), ("COCO", 6.79, 22.28, 0.65)),
    ),
)
