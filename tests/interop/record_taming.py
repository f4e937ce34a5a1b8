"""Records the outputs of taming's Gumbel VQGAN and of a VQ model of latent diffusion, and all published shapes.

    git clone https://github.com/CompVis/taming-transformers
    git clone https://github.com/CompVis/latent-diffusion
    PYTHONPATH=taming-transformers:latent-diffusion python tests/interop/record_taming.py

Recorded at commits 3ba01b2 and a506df5. `test_taming.py` compares with the arrays; neither project is needed for that.
"""

from typing import Any

import torch
from foreign_models import fill
from ldm.modules.diffusionmodules import model as ldm
from recordings import pixels, record, write_shapes
from taming.modules.diffusionmodules import model as taming
from taming.modules.discriminator.model import NLayerDiscriminator
from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2
from torch import nn

F4, F8, F16 = {"ch_mult": (1, 2, 4)}, {"ch_mult": (1, 2, 2, 4)}, {"ch_mult": (1, 1, 2, 2, 4)}


class Model(nn.Module):
    """The modules of `VQModel` and `GumbelVQ`, whose own classes need a training framework."""

    def __init__(
        self, source: Any, codes: int, dim: int, *, is_gumbel: bool = False, channels: int = 3, **shape: Any
    ) -> None:
        super().__init__()
        settings = {
            "ch": 128,
            "num_res_blocks": 2,
            "resolution": 256,
            "attn_resolutions": [],
            "z_channels": dim,
        }
        settings |= {"in_channels": channels, "out_ch": channels, **shape}
        self.encoder = source.Encoder(double_z=False, **settings)
        self.decoder = source.Decoder(**settings)
        if is_gumbel:
            self.quantize = GumbelQuantize(dim, dim, n_embed=codes)
        else:
            self.quantize = VectorQuantizer2(codes, dim, beta=0.25, sane_index_shape=True)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)


def first_stage(codes: int) -> Model:
    return Model(taming, codes, 256, attn_resolutions=[16], **F16)


def trained(model: Model) -> nn.Module:
    """With a discriminator, which represents the modules of the loss."""
    model.loss = nn.Module()
    model.loss.discriminator = NLayerDiscriminator(3, n_layers=3)
    return model


def stage_two(condition: Model | None = None) -> nn.Module:
    """The last layer represents the transformer."""
    model = nn.Module()
    model.first_stage_model = first_stage(1024)
    if condition is not None:
        model.cond_stage_model = condition
    model.transformer = nn.Module()
    model.transformer.head = nn.Linear(1024, 1024, bias=False)
    return model


def record_outputs(name: str, model: Model) -> None:
    fill(model.eval().named_parameters())
    latent = model.quant_conv(model.encoder(pixels(32)))
    if isinstance(model.quantize, GumbelQuantize):  # it adds noise, in eval too; we record the mode
        indices = model.quantize(latent, return_logits=True)[3].argmax(1)
        codes = model.quantize.get_codebook_entry(indices.flatten(), (*indices.shape, latent.shape[1]))
    else:
        codes, _, (_, _, indices) = model.quantize(latent)
    painted = model.decoder(model.post_quant_conv(codes))
    record(name, model.state_dict(), latent=latent, indices=indices, image=painted)


@torch.no_grad()
def main() -> None:
    small = {"ch_mult": (1, 2), "num_res_blocks": 1, "resolution": 32}
    record_outputs("taming_gumbel", Model(taming, 64, 16, is_gumbel=True, attn_resolutions=[16], **small))
    record_outputs("latent_diffusion", Model(ldm, 64, 3, **small))
    with torch.device("meta"):
        published = {
            "vqgan_imagenet_f16_1024": trained(first_stage(1024)),
            "vqgan_imagenet_f16_16384": trained(first_stage(16384)),
            "vqgan_gumbel_f8": trained(
                Model(taming, 8192, 256, is_gumbel=True, attn_resolutions=[32], ch_mult=(1, 1, 2, 4))
            ),
            "coco_8k": trained(first_stage(8192)),
            "coco_openimages_8k": trained(first_stage(8192)),
            "sflckr": stage_two(Model(taming, 1024, 256, channels=182, attn_resolutions=[16], **F16)),
            "ffhq": stage_two(),
            "faceshq": stage_two(),
            "drin": stage_two(Model(taming, 1024, 256, channels=1, attn_resolutions=[16], **F16)),
        }
        write_shapes("taming", published)
        published = {
            "vq-f4": Model(ldm, 8192, 3, **F4),
            "vq-f4-noattn": Model(ldm, 8192, 3, attn_type="none", **F4),
            "vq-f8": Model(ldm, 16384, 4, attn_resolutions=[32], **F8),
            "vq-f8-n256": Model(ldm, 256, 4, attn_resolutions=[32], **F8),
            "vq-f16": Model(ldm, 16384, 8, attn_resolutions=[16], **F16),
        }
        write_shapes("latent_diffusion", {name: trained(model) for name, model in published.items()})


if __name__ == "__main__":
    main()
