"""Small tokenizers of other projects, and weights that depend only on their names."""

import zlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

WIDTH, MULTIPLIERS, CODES = 128, (1, 2), 32
SIZE = 16


def fill(parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Sets every tensor to random values that keep features of order 1."""
    with torch.no_grad():
        for name, parameter in parameters:
            random = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(parameter.shape)
            values = torch.from_numpy(random).float()
            is_norm = "norm" in name or "ln_" in name
            if parameter.ndim == 1:
                values = values * 0.1 + (1.0 if is_norm and name.endswith("weight") else 0.0)
            elif "embedding" not in name:
                values = values / parameter[0].numel() ** 0.5
            parameter.copy_(values)


def image() -> Tensor:
    random = np.random.default_rng(0).uniform(-1, 1, (2, 3, SIZE, SIZE))
    return torch.from_numpy(random).float()


class Taming(nn.Module):
    """The modules of taming's VQModel, whose own class needs a training framework."""

    def __init__(self, *, num_blocks: int, dim: int) -> None:
        from taming.modules.diffusionmodules.model import Decoder, Encoder
        from taming.modules.vqvae.quantize import VectorQuantizer2

        super().__init__()
        shape = {
            "ch": WIDTH,
            "out_ch": 3,
            "ch_mult": MULTIPLIERS,
            "num_res_blocks": num_blocks,
            "attn_resolutions": [SIZE // 2],
            "in_channels": 3,
            "resolution": SIZE,
            "z_channels": 16,
        }
        self.encoder, self.decoder = Encoder(double_z=False, **shape), Decoder(**shape)
        self.quantize = VectorQuantizer2(CODES, dim, beta=0.25)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(16, dim, 1), nn.Conv2d(dim, 16, 1)


def diffusers_model(*, num_blocks: int, dim: int) -> nn.Module:
    from diffusers import VQModel

    return VQModel(
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=tuple(WIDTH * m for m in MULTIPLIERS),
        layers_per_block=num_blocks,
        latent_channels=16,
        num_vq_embeddings=CODES,
        vq_embed_dim=dim,
    )


VQKD_WIDTH, VQKD_DIM, VQKD_CODES = 128, 8, 64
VQKD_SIZES = (32, 48)
"""The side of the images: that of the position embeddings, and one to which they are interpolated."""


def fill_vqkd(state: dict[str, Tensor]) -> None:
    """Sets the tensors of BEiT v2's tokenizer to random values; the codes have length 1, as after training."""
    fill(state.items())
    for name, tensor in state.items():
        if name.endswith(("pos_embed", "cls_token")):
            tensor.mul_(tensor[0].numel() ** 0.5)
        elif name.endswith("cluster_size"):
            tensor.abs_()
        elif name.endswith("initted"):
            tensor.fill_(1)
    codes = state["quantize.embedding.weight"]
    codes /= codes.norm(dim=1, keepdim=True)


def fill_emu3(state: dict[str, Tensor]) -> None:
    """Sets the tensors of Emu3's tokenizer to random values with which images have different indices."""
    fill(state.items())
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.abs_().add_(0.3)
        elif tensor.ndim == 5:  # convolutions over time, most of whose inputs are zeros for a single image
            tensor.mul_(2)


def vqkd_image(size: int) -> Tensor:
    """Two images in [0, 1]."""
    return torch.from_numpy(np.random.default_rng(size).uniform(0, 1, (2, 3, size, size))).float()
