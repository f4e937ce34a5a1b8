"""Cosmos: the discrete tokenizers of images, with finite scalar quantization of wavelet bands."""

from collections.abc import Sequence
from typing import Any

from vq.zoo.entry import Family, Model, Scores

LEVELS = (8, 8, 8, 5, 5, 5)
"""The levels of the channels of a code, which cannot be read from the weights."""


def tokenizer(
    *, width: int, multipliers: Sequence[int], num_blocks: int, patch_size: int, factor: int, latent: int
) -> dict[str, Any]:
    """The section `tokenizer` of a model.

    Args:
        width: The number of channels for a multiplier of 1.
        multipliers: The widths in units of `width`, from the image to the features.
        num_blocks: The number of residual blocks of the encoder for each multiplier.
        patch_size: The factor of the wavelet transform.
        factor: The factor between the image and the features.
        latent: The number of channels between the networks and the convolutions beside the quantizer.
    """
    network = {
        "base_width": width,
        "multipliers": list(multipliers),
        "num_blocks": num_blocks,
        "patch_size": patch_size,
        "downsample_factor": factor,
    }
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.WaveletCNNEncoder", "out_channels": latent, **network},
        "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": list(LEVELS), "eps": -1e-3},
        "decoder": {"type": "vq.networks.WaveletCNNDecoder", "in_channels": latent, **network},
    }


def _model(factor: int, scores: tuple[Scores, ...] = ()) -> Model:
    section = tokenizer(
        width=128, multipliers=(2, 4, 4), num_blocks=2, patch_size=4, factor=factor, latent=256
    )
    return Model(
        name=f"di{factor}x{factor}",
        config={"tokenizer": section},
        file="autoencoder.jit",
        address=f"hf://nvidia/Cosmos-0.1-Tokenizer-DI{factor}x{factor}",
        resolution=1024,
        scores=scores,
    )


def _scores(data: str, size: int | None, fid: float, psnr: float, ssim: float) -> Scores:
    return Scores(
        values={"fid": fid, "psnr": psnr, "ssim_uniform": ssim},
        data=data,
        source="TencentARC/SEED-Voken, docs",
        size=size,
        note=f"{'' if size else 'at the original size; '}measured by the authors of Open-MAGVIT2 and IBQ",
    )


FAMILY = Family(
    name="cosmos",
    title="Cosmos tokenizers of images (discrete)",
    dialect="cosmos",
    paper="https://arxiv.org/abs/2501.03575",
    repository="NVIDIA/Cosmos-Tokenizer",
    licence="NVIDIA Open Model License",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model(8),
        _model(
            16,
            (
                _scores("ImageNet val", 256, 4.57, 19.93, 0.49),
                _scores("COCO", 256, 11.97, 19.22, 0.48),
                _scores("ImageNet val", None, 1.93, 20.56, 0.51),
            ),
        ),
    ),
)
