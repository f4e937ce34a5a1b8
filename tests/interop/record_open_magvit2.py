"""Records the outputs of Open-MAGVIT2's tokenizer in open_magvit2.npz next to this file, and the published shapes.

    git clone https://github.com/TencentARC/SEED-Voken
    PYTHONPATH=SEED-Voken python tests/interop/record_open_magvit2.py

Recorded at commit b9a17ea. `test_open_magvit2.py` compares with the arrays; SEED-Voken is not needed for that.
"""

import torch
from foreign_models import fill
from recordings import pixels, record, write_shapes
from src.Open_MAGVIT2.modules.diffusionmodules.improved_model import Decoder, Encoder
from src.Open_MAGVIT2.modules.ema import LitEma
from src.Open_MAGVIT2.modules.vqvae.lookup_free_quantize import LFQ
from torch import nn


class Tokenizer(nn.Module):
    """The parts of the project's model, whose own class needs a training framework."""

    def __init__(self, *, multipliers: tuple[int, ...], bits: int, num_blocks: int = 4) -> None:
        super().__init__()
        shape = {
            "ch": 128,
            "out_ch": 3,
            "ch_mult": multipliers,
            "num_res_blocks": num_blocks,
            "in_channels": 3,
            "resolution": 128,
            "z_channels": bits,
            "double_z": False,
        }
        self.encoder, self.decoder = Encoder(**shape), Decoder(**shape)
        self.model_ema = LitEma(self)


@torch.no_grad()
def main() -> None:
    model = Tokenizer(multipliers=(1, 2, 1), bits=7, num_blocks=2).eval()
    weights = {
        name: tensor for name, tensor in model.state_dict().items() if tensor.ndim
    }  # without two counters
    fill(weights.items())
    model.model_ema.copy_to(model)  # the averages are what the project evaluates
    latent = model.encoder(pixels(32))
    quantized, _, indices = LFQ(dim=7, codebook_size=2**7).eval()(latent)
    record(
        "open_magvit2", weights, latent=latent, indices=indices.view(2, 8, 8), image=model.decoder(quantized)
    )
    with torch.device("meta"):
        f16 = (1, 1, 2, 2, 4)
        models = {
            "imagenet_128_L": Tokenizer(multipliers=(1, 2, 2, 4), bits=18),
            "imagenet_256_L": Tokenizer(multipliers=f16, bits=18),
            "pretrain256_16384": Tokenizer(multipliers=f16, bits=14),
            "pretrain256_262144": Tokenizer(multipliers=f16, bits=18),
        }
    write_shapes("open_magvit2", models)


if __name__ == "__main__":
    main()
