"""Records the outputs of UniTok with a small encoder in unitok.npz, and the shapes of the published weights.

    git clone https://github.com/FoundationVision/UniTok
    PYTHONPATH=UniTok python tests/interop/record_unitok.py  # it needs the packages of its requirements.txt

Recorded at commit bb8012e, with timm 1.0.8. `test_unitok.py` compares with the arrays; UniTok is not needed for that.
"""

import timm
import torch
from einops import rearrange
from foreign_models import fill
from models.unitok import UniTok
from recordings import pixels, record, write_shapes
from utils.config import Args

TEXT = ("text_encoder", "fc_norm", "projection", "logit_scale")
create_model = timm.create_model


def made(**arguments: object) -> UniTok:
    args = Args()
    for name, value in arguments.items():
        setattr(args, name, value)
    return UniTok(args).eval()


@torch.no_grad()
def main() -> None:
    write_shapes("unitok", {"unitok_tokenizer": made()})
    timm.create_model = lambda *names, **options: create_model(*names, **options, depth=1)
    model = made(model="vitamin_base", img_size=64, grad_ckpt=False, vocab_size=8 * 64)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(TEXT)}
    fill(state.items())
    latent = model.quant_proj(model.encoder(pixels(64)))
    indices = model.quantizer.f_to_idx(latent)
    features = model.post_quant_proj(model.quantizer.idx_to_f(indices))
    record(
        "unitok",
        state,
        latent=rearrange(latent, "b (h w) c -> b h w c", h=4),
        indices=rearrange(indices, "b part (h w) -> b h w part", h=4),
        image=model.decoder(features),
    )


if __name__ == "__main__":
    main()
