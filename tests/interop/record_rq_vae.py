"""Records the outputs of a small RQ-VAE in rq_vae.npz next to this file, and the shapes of the published weights.

    git clone https://github.com/kakaobrain/rq-vae-transformer
    : > rq-vae-transformer/rqvae/models/__init__.py  # it imports their transformer, which needs Python 3.10 or earlier
    PYTHONPATH=rq-vae-transformer python tests/interop/record_rq_vae.py

Recorded at commit 341395e. `test_rq_vae.py` compares with the arrays; the project is not needed for that.
"""

from collections.abc import Sequence

import torch
from foreign_models import fill
from recordings import pixels, record, write_shapes
from rqvae.models.rqvae import RQVAE


def made(
    *, multipliers: Sequence[int], blocks: int, resolution: int, attended: int, codes: int, dim: int
) -> RQVAE:
    """The project's model; `attended` is the resolution with attention."""
    side = resolution // 2 ** (len(multipliers) - 1)
    shape = {
        "double_z": False,
        "z_channels": dim,
        "resolution": resolution,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": multipliers,
        "num_res_blocks": blocks,
        "attn_resolutions": [attended],
        "dropout": 0.0,
    }
    return RQVAE(
        embed_dim=dim,
        n_embed=codes,
        latent_shape=[side, side, dim],
        code_shape=[side, side, 4],
        shared_codebook=True,
        restart_unused_codes=True,
        ddconfig=shape,
    ).eval()


@torch.no_grad()
def main() -> None:
    model = made(multipliers=(1, 1, 2), blocks=1, resolution=16, attended=8, codes=32, dim=8)
    state = model.state_dict()
    # The four stages have one codebook, whose tensors the file has four times.
    fill((name, tensor) for name, tensor in state.items() if not name.startswith("quantizer.codebooks."))
    fill((name, tensor) for name, tensor in state.items() if name.startswith("quantizer.codebooks.0."))
    latent = model.encode(pixels(16))
    indices = model.get_codes(pixels(16))
    record("rq_vae", state, latent=latent, indices=indices, image=model.decode_code(indices))
    with torch.device("meta"):
        full = {"multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "resolution": 256, "dim": 256}
        models = {"ffhq": made(**full, attended=16, codes=2048)}
        for name in ("church", "cat", "bedroom", "imagenet", "imagenet_50e"):
            models[name] = made(**full, attended=8, codes=16384)
    write_shapes("rq_vae", models)


if __name__ == "__main__":
    main()
