"""Emu3: a tokenizer of videos and images with 32,768 codes of four channels, read for single images."""

from collections.abc import Sequence
from typing import Any

from vq.zoo.entry import Family, Model


def tokenizer(
    *,
    codes: int = 32768,
    dim: int = 4,
    multipliers: Sequence[int] = (1, 2, 2, 4),
    width: int = 256,
    num_blocks: int = 2,
) -> dict[str, Any]:
    """The section `tokenizer` of a model, as plain data.

    Args:
        codes: The size of the codebook.
        dim: The dimension of the codes.
        multipliers: The widths of the resolutions in units of `width`, from the highest resolution to the lowest.
        width: The number of channels for a multiplier of 1.
        num_blocks: The number of residual blocks of the encoder at each resolution.
    """
    network = {"base_width": width, "multipliers": list(multipliers), "num_blocks": num_blocks}
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.Emu3Encoder", "out_channels": dim, **network},
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": codes, "dim": dim},
            "distance": {"type": "vq.quantizers.EuclideanDistance"},
        },
        "decoder": {"type": "vq.networks.Emu3Decoder", "in_channels": dim, **network},
        "projection_kernel": None,
    }


def _model(name: str, address: str, file: str | None = None) -> Model:
    # The project enlarges images of fewer than 512 x 512 pixels before it tokenizes them.
    return Model(name=name, config={"tokenizer": tokenizer()}, file=file, address=address, resolution=512)


FAMILY = Family(
    name="emu3",
    title="Emu3",
    dialect="emu3",
    paper="https://arxiv.org/abs/2409.18869",
    repository="baaivision/Emu3",
    licence="Apache-2.0",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model("vision_tokenizer", "hf://BAAI/Emu3-VisionTokenizer", file="model.safetensors"),
        _model("chat_hf", "hf://Emu3-community/Emu3-Chat-hf"),
    ),
)
