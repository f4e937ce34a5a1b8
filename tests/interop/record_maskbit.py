"""Records the outputs of MaskBit's tokenizers in maskbit.npz and two more files next to this one, and published shapes.

    git clone https://github.com/markweberdev/maskbit
    pip install omegaconf
    PYTHONPATH=maskbit python tests/interop/record_maskbit.py

Recorded at commit 5ea3d73. `test_maskbit.py` compares with the arrays; MaskBit is not needed for that. The tokenizer
with a codebook has the older decoder and averages, as their copy of MaskGIT's VQGAN.
"""

import torch
from foreign_models import fill
from modeling.conv_vqgan import ConvVQModel
from omegaconf import OmegaConf
from recordings import pixels, record, write_shapes

PUBLISHED = {
    **{f"maskbit_tokenizer_{bits}bit": ("lookup-free", 2**bits, bits) for bits in (10, 12, 14, 16, 18)},
    "vqgan_plus_paper": ("lookup", 1024, 256),
    "vqgan_plus_12bit": ("lookup", 4096, 64),
}


def tokenizer(
    quantizer: str,
    codes: int,
    dim: int,
    *,
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4),
    strided: bool = True,
) -> ConvVQModel:
    config = {
        "quantizer_type": quantizer,
        "codebook_size": codes,
        "token_size": dim,
        "commitment_cost": 0.25,
        "entropy_loss_weight": 0.02,
        "entropy_loss_temperature": 0.01,
        "entropy_gamma": 1.0,
        "num_channels": 3,
        "hidden_channels": 128,
        "channel_mult": multipliers,
        "num_resolutions": len(multipliers),
        "num_res_blocks": 2,
        "sample_with_conv": strided,
    }
    return ConvVQModel(OmegaConf.create(config), legacy=not strided)


@torch.no_grad()
def main() -> None:
    models = {
        "maskbit": tokenizer("lookup-free", 64, 6, multipliers=(1, 1, 2)),
        "maskbit_codebook": tokenizer("lookup", 32, 16, multipliers=(1, 1, 2), strided=False),
        "maskbit_vqgan_plus": tokenizer("lookup", 32, 16, multipliers=(1, 1, 2)),
    }
    for name, model in models.items():
        fill(model.eval().named_parameters())
        images = (pixels(16) + 1) / 2
        image, results = model(images)
        record(
            name,
            model.state_dict(),
            latent=model.encoder(images),
            indices=results["min_encoding_indices"].long(),
            image=image * 2 - 1,
        )
    with torch.device("meta"):
        published = {name: tokenizer(*sizes) for name, sizes in PUBLISHED.items()}
        published["maskgit_tokenizer"] = tokenizer("lookup", 1024, 256, strided=False)
    write_shapes("maskbit", published)


if __name__ == "__main__":
    main()
