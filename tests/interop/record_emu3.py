"""Records the outputs of Emu3's tokenizer for images in emu3.npz next to this file, and the published shapes.

    git clone https://github.com/baaivision/Emu3
    pip install transformers
    PYTHONPATH=Emu3 python tests/interop/record_emu3.py

Recorded at commit f6ea9aa, and with transformers 5.24.0 in emu3_transformers.npz. `test_emu3.py` compares with the
arrays; Emu3 and transformers are not needed for that.
"""

import torch
from emu3.tokenizer.configuration_emu3visionvq import Emu3VisionVQConfig
from emu3.tokenizer.modeling_emu3visionvq import Emu3VisionVQModel
from foreign_models import fill_emu3
from recordings import pixels, record, write_shapes
from torch import Tensor, nn
from transformers import Emu3VQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE


def in_transformers(config: Emu3VQVAEConfig) -> nn.Module:
    """The tokenizer as a part of a whole model, with the names of published files, which transformers converts."""
    whole = nn.Module()
    whole.vqmodel = Emu3VQVAE(config)
    return whole.eval()


def filled(model: nn.Module) -> dict[str, Tensor]:
    """Gives every tensor random values and returns them, without the counters of the batch norms."""
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.ndim}
    fill_emu3(state)
    return state


def latent_of(model: nn.Module, image: Tensor) -> Tensor:
    """What the quantizer gets of an image, which the project repeats four times."""
    features = model.encoder(image[:, None].repeat(1, 4, 1, 1, 1))
    return model.quant_conv(features.movedim(2, 1))[:, :, 0].movedim(1, -1)


@torch.no_grad()
def main() -> None:
    shape = {"codebook_size": 64, "num_res_blocks": 2}
    own = Emu3VisionVQModel(Emu3VisionVQConfig(ch=128, ch_mult=[1, 2], attn_resolutions=[1], **shape)).eval()
    state = filled(own)
    indices = own.encode(pixels(16))
    record("emu3", state, latent=latent_of(own, pixels(16)), indices=indices, image=own.decode(indices))
    other = in_transformers(
        Emu3VQVAEConfig(
            base_channels=128, channel_multiplier=[1, 2], attn_resolutions=[1], hidden_size=256, **shape
        )
    )
    state, inner = filled(other), other.vqmodel
    indices = torch.stack(inner.encode(pixels(16), torch.tensor([[16, 16]] * 2)).image_tokens)
    latent = latent_of(inner, pixels(16))
    record("emu3_transformers", state, latent=latent, indices=indices, image=inner.decode(indices))
    with torch.device("meta"):
        published = {
            "vision_tokenizer": Emu3VisionVQModel(Emu3VisionVQConfig()),
            "chat_hf": in_transformers(Emu3VQVAEConfig()),
        }
    write_shapes("emu3", published)


if __name__ == "__main__":
    main()
