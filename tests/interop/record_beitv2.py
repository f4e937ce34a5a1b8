"""Records the outputs of BEiT v2's tokenizer (VQ-KD) in beitv2.npz, next to this file.

    git clone https://github.com/microsoft/unilm
    PYTHONPATH=unilm/beit2 python tests/interop/record_beitv2.py

Recorded at commit 768a3c8 with timm 1.0.31. The teacher, which the tokenizer does not use, is replaced by an empty
module. `test_beitv2.py` compares with the arrays; BEiT v2 is not needed for that.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from foreign_models import VQKD_CODES, VQKD_DIM, VQKD_SIZES, VQKD_WIDTH, fill_vqkd, vqkd_image
from torch import nn

teachers = types.ModuleType("vqkd_teacher")
teachers.clip = types.SimpleNamespace(load=lambda *_, **__: (nn.Module(), None))
teachers.get_dino_vit_base = nn.Module
sys.modules["vqkd_teacher"] = teachers
sys.modules["utils"] = types.ModuleType("utils")

import modeling_vqkd  # noqa: E402

PUBLISHED = ("1x768x12_clip", "3x768x12_clip", "1x768x12_dino")


def tiny() -> nn.Module:
    """The published layers at a small size: 4 x 4 patches of 8 pixels, 2 blocks, 2 heads."""
    shared = modeling_vqkd.get_model_default_params() | {
        "embed_dim": VQKD_WIDTH,
        "num_heads": 2,
        "num_classes": 0,
    }
    encoder = shared | {"img_size": 32, "patch_size": 8, "depth": 2}
    decoder = shared | {"img_size": 4, "patch_size": 1, "depth": 1, "in_chans": VQKD_DIM}
    return modeling_vqkd.VQKD(
        encoder, decoder, VQKD_CODES, VQKD_DIM, teacher_model_type="None", decoder_out_dim=24
    )


def shapes(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """The names of a model's tensors, and their shapes as text."""
    state = model.state_dict()
    return np.array(list(state)), np.array([" ".join(map(str, t.shape)) for t in state.values()])


@torch.no_grad()
def main() -> None:
    model = tiny().eval()
    fill_vqkd(model.state_dict())
    arrays = dict(zip(("names", "shapes"), shapes(model), strict=True))
    for size in VQKD_SIZES:
        picture = vqkd_image(size)
        features = model.encode_task_layer(model.encoder(picture * 2 - 1, return_patch_tokens=True))
        indices = model.get_codebook_indices(picture)
        codes = model.encode(picture * 2 - 1)[0]
        arrays |= {
            f"features_{size}": features.numpy(),
            f"indices_{size}": indices.numpy(),
            f"codes_{size}": codes.numpy(),
            f"decoded_{size}": model.decode(codes).numpy(),
        }
    for name in PUBLISHED:
        published = getattr(modeling_vqkd, f"vqkd_encoder_base_decoder_{name}")()
        arrays[f"names_{name}"], arrays[f"shapes_{name}"] = shapes(published)
    np.savez_compressed(Path(__file__).with_name("beitv2.npz"), **arrays)


if __name__ == "__main__":
    main()
