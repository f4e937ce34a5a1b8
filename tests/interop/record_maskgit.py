"""Records the outputs of MaskGIT's VQGAN in maskgit.npz next to this file, and the shapes of the published weights.

    git clone https://github.com/bytedance/1d-tokenizer
    pip install omegaconf
    PYTHONPATH=1d-tokenizer/modeling/modules python tests/interop/record_maskgit.py

Recorded at commit 942a96f. `test_maskgit.py` compares with the arrays; 1d-tokenizer is not needed for that.
"""

import torch
from foreign_models import fill
from maskgit_vqgan import Decoder, Encoder, VectorQuantizer
from omegaconf import OmegaConf
from recordings import pixels, record, write_shapes
from torch import nn


class MaskGIT(nn.Module):
    """The parts of `PretrainedTokenizer`, whose own constructor loads the published weights."""

    def __init__(self, *, multipliers: tuple[int, ...], codes: int, dim: int, num_blocks: int) -> None:
        super().__init__()
        config = {
            "channel_mult": multipliers,
            "num_resolutions": len(multipliers),
            "dropout": 0.0,
            "hidden_channels": 128,
            "num_channels": 3,
            "num_res_blocks": num_blocks,
            "resolution": 256,
            "z_channels": dim,
        }
        self.encoder, self.decoder = Encoder(OmegaConf.create(config)), Decoder(OmegaConf.create(config))
        self.quantize = VectorQuantizer(num_embeddings=codes, embedding_dim=dim, commitment_cost=0.25)


@torch.no_grad()
def main() -> None:
    model = MaskGIT(multipliers=(1, 2), codes=32, dim=16, num_blocks=2).eval()
    fill(model.named_parameters())
    latent = model.encoder((pixels(16) + 1) / 2)
    codes, indices, _ = model.quantize(latent)
    record(
        "maskgit",
        model.state_dict(),
        latent=latent,
        indices=indices.view(2, 8, 8),
        image=model.decoder(codes) * 2 - 1,
    )
    with torch.device("meta"):
        published = MaskGIT(multipliers=(1, 1, 2, 2, 4), codes=1024, dim=256, num_blocks=2)
    write_shapes("maskgit", {"vqgan_f16_256": published})


if __name__ == "__main__":
    main()
