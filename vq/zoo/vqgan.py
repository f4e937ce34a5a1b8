"""The config of the convolutional tokenizer of VQGAN, which many families share."""

from collections.abc import Sequence
from typing import Any


def vqgan(
    *,
    multipliers: Sequence[int],
    codes: int,
    dim: int,
    latent: int,
    width: int = 128,
    num_blocks: int = 2,
    attention: bool | Sequence[int] = True,
    middle_attention: bool | None = None,
    distance: str = "EuclideanDistance",
) -> dict[str, Any]:
    """The section `tokenizer` of a VQGAN, as plain data.

    Args:
        multipliers: The widths of the resolutions in units of `width`, from the highest resolution to the lowest.
        codes: The size of the codebook.
        dim: The dimension of the codes.
        latent: The number of channels between the networks and the convolutions beside the codebook.
        width: The number of channels for a multiplier of 1.
        num_blocks: The number of residual blocks of the encoder at each resolution.
        attention: The resolutions with attention, as `CNNEncoder` takes them.
        middle_attention: Whether there is attention in the middle, as `CNNEncoder` takes it.
        distance: The class in `vq.quantizers` that selects the code.
    """
    network: dict[str, Any] = {
        "base_width": width,
        "multipliers": list(multipliers),
        "num_blocks": num_blocks,
        "attention": attention if isinstance(attention, bool) else list(attention),
        "middle_attention": middle_attention,
    }
    # Defaults are left out, so that the section equals that of a page.
    network = {
        k: v for k, v in network.items() if (k, v) not in (("attention", True), ("middle_attention", None))
    }
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.CNNEncoder", "out_channels": latent, **network},
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": codes, "dim": dim},
            "distance": {"type": f"vq.quantizers.{distance}"},
        },
        "decoder": {"type": "vq.networks.CNNDecoder", "in_channels": latent, **network},
    }
