"""UniTok: eight codes per position between a ViTamin encoder and its mirror image."""

from collections.abc import Sequence
from typing import Any

from vq.zoo.entry import Family, Model, Scores

HEAD_DIM = 64
"""The channels of an attention head, which cannot be read from the weights."""


def tokenizer(
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    width: int,
    depth: int,
    codebooks: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """The section `tokenizer` of a model.

    Args:
        widths: The numbers of channels of the levels of convolutions, from the image to the features.
        depths: The numbers of blocks of these levels.
        width: The number of channels of the tokens.
        depth: The number of transformer blocks of the encoder, and of the decoder.
        codebooks: The number and the dimension of the codes of each codebook.
    """
    network = {
        "widths": list(widths),
        "depths": list(depths),
        "width": width,
        "depth": depth,
        "num_heads": width // HEAD_DIM,
    }
    latent = sum(dim for _, dim in codebooks)
    quantizers = [
        {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": size, "dim": dim},
            "distance": {"type": "vq.quantizers.CosineDistance"},
        }
        for size, dim in codebooks
    ]
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.ViTaminEncoder", "out_channels": latent, **network},
        "quantizer": {"type": "vq.quantizers.ProductQuantizer", "quantizers": quantizers},
        "decoder": {"type": "vq.networks.ViTaminDecoder", "in_channels": latent, **network},
        "projection_kernel": None,
    }


FAMILY = Family(
    name="unitok",
    title="UniTok",
    dialect="unitok",
    paper="https://arxiv.org/abs/2502.20321",
    repository="FoundationVision/UniTok",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        Model(
            name="unitok_tokenizer",
            config={
                "tokenizer": tokenizer(
                    widths=(160, 320), depths=(2, 4), width=1024, depth=31, codebooks=((4096, 8),) * 8
                )
            },
            file="unitok_tokenizer.pth",
            address="hf://FoundationVision/unitok_tokenizer",
            scores=(
                Scores(
                    values={"fid": 0.41},
                    data="ImageNet val",
                    source="FoundationVision/UniTok, README.md",
                    size=256,
                    reference="the publisher's batch of ImageNet",
                ),
            ),
        ),
    ),
)
