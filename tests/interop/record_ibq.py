"""Records the outputs of IBQ's tokenizer in ibq.npz next to this file, and the shapes of the published weights.

    git clone https://github.com/TencentARC/SEED-Voken
    PYTHONPATH=SEED-Voken python tests/interop/record_ibq.py

Recorded at commit b9a17ea. `test_ibq.py` compares with the arrays; SEED-Voken is not needed for that.
"""

import torch
from foreign_models import fill
from recordings import pixels, record, write_shapes
from src.IBQ.modules.diffusionmodules.model import Decoder, Encoder
from src.IBQ.modules.ema import LitEma
from src.IBQ.modules.vqvae.quantize import IndexPropagationQuantize
from torch import nn


class Tokenizer(nn.Module):
    """The parts of the project's model, whose own class needs a training framework."""

    def __init__(
        self, *, multipliers: tuple[int, ...], resolution: int, latent: int, codes: int, dim: int
    ) -> None:
        super().__init__()
        shape = {
            "ch": 128,
            "out_ch": 3,
            "ch_mult": multipliers,
            "num_res_blocks": 4,
            "attn_resolutions": [resolution // 2 ** (len(multipliers) - 1)],
            "in_channels": 3,
            "resolution": resolution,
            "z_channels": latent,
            "double_z": False,
        }
        self.encoder, self.decoder = Encoder(**shape), Decoder(**shape)
        self.quantize = IndexPropagationQuantize(codes, dim)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(latent, dim, 1), nn.Conv2d(dim, latent, 1)
        self.model_ema = LitEma(self)


@torch.no_grad()
def main() -> None:
    model = Tokenizer(multipliers=(1, 2), resolution=16, latent=16, codes=32, dim=8).eval()
    weights = {
        name: tensor for name, tensor in model.state_dict().items() if tensor.ndim
    }  # without two counters
    fill(weights.items())
    model.model_ema.copy_to(model)  # the averages are what the project evaluates
    latent = model.quant_conv(model.encoder(pixels(16)))
    quantized, _, (_, _, indices) = model.quantize(latent)
    painted = model.decoder(model.post_quant_conv(quantized))
    record("ibq", weights, latent=latent, indices=indices.reshape(2, 8, 8), image=painted)
    with torch.device("meta"):
        sizes = {
            **{f"imagenet256_{codes}": codes for codes in (1024, 8192, 16384, 262144)},
            **{f"pretrain256_{codes}": codes for codes in (16384, 262144)},
        }
        models = {
            name: Tokenizer(multipliers=(1, 1, 2, 2, 4), resolution=256, latent=256, codes=codes, dim=256)
            for name, codes in sizes.items()
        }
    write_shapes("ibq", models)


if __name__ == "__main__":
    main()
