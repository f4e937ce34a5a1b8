"""Records the outputs of Chameleon's VQGAN in chameleon.npz next to this file, and the published shapes.

    git clone https://github.com/facebookresearch/chameleon
    PYTHONPATH=chameleon/chameleon/inference python tests/interop/record_chameleon.py

Recorded at commit dbbe47f. `test_whole_models.py` compares with the arrays; Chameleon is not needed for that. The sizes
are those of `vqgan.yaml`, which is published with the weights, as transformers' `ChameleonVQVAEConfig` has them.
"""

from typing import Any

import torch
from foreign_models import fill
from recordings import pixels, record, write_shapes
from vqgan import VQModel

PUBLISHED: dict[str, Any] = {
    "double_z": False,
    "z_channels": 256,
    "resolution": 512,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
SMALL = PUBLISHED | {"z_channels": 16, "ch_mult": [1, 2], "resolution": 16}


@torch.no_grad()
def main() -> None:
    model = VQModel(SMALL, n_embed=32, embed_dim=16).eval()
    fill(model.named_parameters())
    latent = model.quant_conv(model.encoder(pixels(16)))
    indices = model.encode(pixels(16))[2][2]
    painted = model.decode(model.quantize.get_codebook_entry(indices, (2, 8, 8, 16)))
    record("chameleon", model.state_dict(), latent=latent, indices=indices.view(2, 8, 8), image=painted)
    with torch.device("meta"):
        write_shapes("chameleon", {"vqgan": VQModel(PUBLISHED, n_embed=8192, embed_dim=256)})


if __name__ == "__main__":
    main()
