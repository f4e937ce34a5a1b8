"""Records the outputs of Janus's image tokenizer in janus.npz next to this file, and the published shapes.

    git clone https://github.com/deepseek-ai/Janus
    pip install transformers
    PYTHONPATH=Janus/janus/models python tests/interop/record_janus.py

Recorded at commit 1daa72f, and with transformers 5.24.0 in janus_transformers.npz. `test_whole_models.py` compares with
the arrays; Janus and transformers are not needed for that.
"""

import re

import torch
from foreign_models import fill
from recordings import pixels, record, write_shapes
from torch import Tensor, nn
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE
from vq_model import ModelArgs, VQ_models, VQModel


def whole(tokenizer: VQModel) -> nn.Module:
    """The parts of a whole model that a file has beside its tokenizer are represented by its code embeddings."""
    model = nn.Module()
    model.gen_vision_model = tokenizer
    model.gen_embed = nn.Embedding(tokenizer.config.codebook_size, tokenizer.config.codebook_embed_dim)
    return model.eval()


def small() -> VQModel:
    shape = {"encoder_ch_mult": [1, 2], "decoder_ch_mult": [1, 2], "z_channels": 16}
    return VQModel(ModelArgs(codebook_size=32, **shape)).eval()


def in_transformers(config: JanusVQVAEConfig) -> nn.Module:
    """The tokenizer with the names of transformers."""
    whole_model = nn.Module()
    whole_model.model = nn.Module()
    whole_model.model.vqmodel = JanusVQVAE(config)
    return whole_model.eval()


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of Janus for those of transformers."""
    changes = {
        r"encoder\.down\.": "encoder.conv_blocks.",
        r"decoder\.up\.": "decoder.conv_blocks.",
        r"\.block\.": ".res.",
        r"mid\.block_1": "mid.0",
        r"mid\.attn_1": "mid.1",
        r"mid\.block_2": "mid.2",
    }
    for old, new in changes.items():
        state = {re.sub(old, new, name): tensor for name, tensor in state.items()}
    return state


def record_transformers() -> None:
    """Records what both give for weights of transformers.

    The encoder of transformers searches the nearest code without normalizing, so the indices are those of Janus.
    """
    model = in_transformers(
        JanusVQVAEConfig(channel_multiplier=[1, 2], latent_channels=16, num_embeddings=32, num_patches=8)
    )
    fill(model.named_parameters())
    theirs, own = model.model.vqmodel, small()
    own.load_state_dict(renamed(theirs.state_dict()) | {"quantize.codebook_used": own.quantize.codebook_used})
    latent = theirs.quant_conv(theirs.encoder(pixels(16)))
    indices = own.encode(pixels(16))[2][2].view(2, 8, 8)
    painted = theirs.decode(indices.flatten(1))
    record("janus_transformers", model.state_dict(), latent=latent, indices=indices, image=painted)


@torch.no_grad()
def main() -> None:
    model = whole(small())
    fill(model.named_parameters())
    tokenizer = model.gen_vision_model
    latent = tokenizer.quant_conv(tokenizer.encoder(pixels(16)))
    indices = tokenizer.encode(pixels(16))[2][2].view(2, 8, 8)
    painted = tokenizer.decode_code(indices.flatten(), (2, 8, 8, 8))
    record("janus", model.state_dict(), latent=latent, indices=indices, image=painted)
    record_transformers()
    with torch.device("meta"):
        published = whole(VQ_models["VQ-16"]())
        converted = in_transformers(JanusVQVAEConfig())
    shapes = dict.fromkeys(("1.3b", "pro_1b", "pro_7b"), published)
    write_shapes("janus", shapes | {"pro_1b_transformers": converted})


if __name__ == "__main__":
    main()
