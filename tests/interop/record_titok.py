"""Records the outputs of small TiTok models in titok_*.npz next to this file, and the shapes of the published weights.

    git clone https://github.com/bytedance/1d-tokenizer
    pip install omegaconf accelerate huggingface_hub
    PYTHONPATH=1d-tokenizer python tests/interop/record_titok.py

Recorded at commit 942a96f. `test_titok.py` compares with the arrays; 1d-tokenizer is not needed for that. The small
models have the published width of S and two blocks; MaskGIT's decoder has three resolutions instead of five.
"""

from pathlib import Path
from typing import Any

import modeling.titok
import torch
from foreign_models import fill
from modeling.modules.maskgit_vqgan import Decoder, VectorQuantizer
from omegaconf import OmegaConf
from recordings import pixels, record, write_shapes
from torch import nn

CONFIGS = Path(modeling.titok.__file__).parents[1] / "configs" / "infer" / "TiTok"
NAMES = {
    "l32": "titok_l32",
    "b64": "titok_b64",
    "s128": "titok_s128",
    "bl64_vq8k": "titok_bl64_vq8k",
    "bl128_vq8k": "titok_bl128_vq8k",
    "sl256_vq8k": "titok_sl256_vq8k",
}


def small(name: str) -> nn.Module:
    """The model of a published config with fewer and narrower layers, for images of 16 pixels."""
    config: Any = OmegaConf.load(CONFIGS / f"{NAMES[name]}.yaml")
    config.dataset.preprocessing.crop_size = 16
    sizes = {"vit_enc_model_size": "small", "vit_dec_model_size": "small", "num_latent_tokens": 16}
    patches = {"vit_enc_patch_size": 4, "vit_dec_patch_size": 4, "codebook_size": 256, "token_size": 8}
    config.model.vq_model.update({**sizes, **patches})
    model = modeling.titok.TiTok(config)
    for side in (model.encoder, model.decoder):
        side.transformer, side.num_layers = side.transformer[:2], 2
    if model.finetune_decoder:
        network = {"channel_mult": [1, 1, 2], "num_resolutions": 3, "dropout": 0.0, "hidden_channels": 128}
        rest = {"num_channels": 3, "num_res_blocks": 1, "resolution": 16, "z_channels": 8}
        model.pixel_decoder = Decoder(OmegaConf.create({**network, **rest}))
        model.pixel_quantize = VectorQuantizer(num_embeddings=1024, embedding_dim=8, commitment_cost=0.25)
    return model.eval()


@torch.no_grad()
def main() -> None:
    for name in ("s128", "sl256_vq8k"):
        model = small(name)
        fill(model.state_dict().items())
        picture = (pixels(16) + 1) / 2
        latent = model.encoder(pixel_values=picture, latent_tokens=model.latent_tokens)
        _, result = model.quantize(latent)
        indices = result["min_encoding_indices"][:, 0]
        painted = model.decode_tokens(indices[:, None]) * 2 - 1
        record(f"titok_{name}", model.state_dict(), latent=latent[:, :, 0], indices=indices, image=painted)
    with torch.device("meta"):
        published = {
            name: modeling.titok.TiTok(OmegaConf.load(CONFIGS / f"{file}.yaml"))
            for name, file in NAMES.items()
        }
    write_shapes("titok", published)


if __name__ == "__main__":
    main()
