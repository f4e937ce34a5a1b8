"""Records the outputs of an Infinity tokenizer in infinity.npz, and the shapes of the published weights.

    git clone https://github.com/FoundationVision/Infinity
    PYTHONPATH=Infinity python tests/interop/record_infinity.py

Recorded at commit 4c27bbb. `test_infinity.py` compares with the arrays; Infinity is not needed for that.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from foreign_models import fill
from recordings import pixels, record, write_shapes

F16, F8 = [1, 2, 4, 4, 4], [1, 2, 4, 4]
PUBLISHED = {
    "infinity_vae_d16": (16, F16),
    "infinity_vae_d24": (24, F16),
    "infinity_vae_d32": (32, F16),
    "infinity_vae_d32reg": (32, F16),
    "infinity_vae_d56_f8_14_patchify": (14, F8),
}


def made(bits: int, multipliers: list[int]) -> torch.nn.Module:
    if "infinity.models" not in sys.modules:  # its __init__ imports the generator, which needs a GPU
        package = ModuleType("infinity.models")
        package.__path__ = [f"{folder}/models" for folder in find_spec("infinity").submodule_search_locations]
        sys.modules["infinity.models"] = package
    return import_module("infinity.models.bsq_vae.vae").vae_model(
        {}, "dynamic", bits, 2**bits, True, 2 ** (len(multipliers) - 1), multipliers, multipliers
    )


@torch.no_grad()
def main() -> None:
    model = made(16, [1, 2])
    fill(model.named_parameters())
    latent = model.encoder(pixels(32))
    quantized, _, bits, *_ = model.quantizer(latent)
    flat = torch.cat([scale.flatten(1, -2) for scale in bits], dim=1)
    record("infinity", model.state_dict(), latent=latent, bits=flat.bool(), image=model.decoder(quantized))
    with torch.device("meta"):
        models = {name: made(*shape) for name, shape in PUBLISHED.items()}
    write_shapes(
        "infinity",
        {f"{name}{suffix}": model for name, model in models.items() for suffix in ("", "_512", "_1024")},
    )


if __name__ == "__main__":
    main()
