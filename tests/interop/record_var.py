"""Records the outputs of VAR's tokenizer in var.npz next to this file, and the shapes of the published weights.

    git clone https://github.com/FoundationVision/VAR
    PYTHONPATH=VAR python tests/interop/record_var.py

Recorded at commit 78b9539. `test_var.py` compares with the arrays; VAR is not needed for that.
"""

import torch
from foreign_models import fill
from models.basic_vae import Decoder, Encoder
from models.quant import VectorQuantizer2
from models.vqvae import VQVAE
from recordings import pixels, record, write_shapes

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def small() -> VQVAE:
    """A tokenizer with the published scales and two resolutions, so that images of 32 pixels have 16 x 16 features."""
    model = VQVAE(ch=32, vocab_size=64)
    shape = {"ch": 128, "ch_mult": (1, 2), "num_res_blocks": 1, "z_channels": 32}
    model.encoder, model.decoder = Encoder(**shape), Decoder(**shape)
    model.quantize = VectorQuantizer2(64, 32, using_znorm=False, v_patch_nums=SCALES)
    return model.eval()


@torch.no_grad()
def main() -> None:
    model = small()
    fill(model.named_parameters())
    latent = model.quant_conv(model.encoder(pixels(32)))
    indices = model.img_to_idxBl(pixels(32))
    painted = model.decoder(
        model.post_quant_conv(model.quantize.f_to_idxBl_or_fhat(latent, to_fhat=True)[-1])
    )
    record("var", model.state_dict(), latent=latent, indices=torch.cat(indices, dim=1), image=painted)
    with torch.device("meta"):
        published = VQVAE(vocab_size=4096, z_channels=32, ch=160, v_patch_nums=SCALES, share_quant_resi=4)
    write_shapes("var", dict.fromkeys(("vae_ch160v4096z32", "vae_ch160v4096z32_512"), published))


if __name__ == "__main__":
    main()
