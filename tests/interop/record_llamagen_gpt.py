"""Records the outputs of LlamaGen's transformer in llamagen_gpt.npz next to this file, and the published shapes.

    git clone https://github.com/FoundationVision/LlamaGen
    PYTHONPATH=LlamaGen:LlamaGen/tokenizer/tokenizer_image python tests/interop/record_llamagen_gpt.py

Recorded at commit ce98ec4. `test_llamagen_gpt.py` compares with the arrays; LlamaGen is not needed for that.
"""

from functools import partial

import numpy as np
import torch
from autoregressive.models.generate import generate
from autoregressive.models.gpt import GPT_models, ModelArgs, Transformer
from foreign_models import fill
from recordings import record, write_shapes
from torch import Tensor, nn
from vq_model import VQ_models

SIDE, CODES, CLASSES = 4, 32, 5
PUBLISHED = {"B": (256, 384), "L": (256, 384), "XL": (384,), "XXL": (384,), "3B": (384,)}


def small() -> Transformer:
    shape = {"dim": 64, "n_layer": 2, "n_head": 4, "vocab_size": CODES, "num_classes": CLASSES}
    return Transformer(ModelArgs(block_size=SIDE**2, **shape)).eval()


def likeliest(model: Transformer, labels: Tensor, guidance: float) -> Tensor:
    """The tokens that the published sampler gives if it always takes the likeliest one."""
    return generate(model, labels, SIDE**2, cfg_scale=guidance, sample_logits=False).long()


def published() -> dict[str, nn.Module]:
    torch.linspace = partial(torch.linspace, device="cpu")  # the modules read its values as numbers
    with torch.device("meta"):
        models = {"vq_ds8_c2i": VQ_models["VQ-8"](), "vq_ds16_c2i": VQ_models["VQ-16"]()}
        for size, resolutions in PUBLISHED.items():
            for resolution in resolutions:
                model = GPT_models[f"GPT-{size}"](block_size=(resolution // 16) ** 2)
                models[f"c2i_{size}_{resolution}"] = model
    return models | {"vq_ds16_t2i": models["vq_ds16_c2i"]}


@torch.no_grad()
def main() -> None:
    model = small()
    fill(model.named_parameters())
    random = np.random.default_rng(0)
    tokens = torch.from_numpy(random.integers(CODES, size=(3, SIDE**2)))
    labels = torch.tensor([0, 3, CLASSES])  # the last one means no class
    logits, _ = model(tokens[:, :-1], labels, input_pos=torch.arange(SIDE**2))
    record(
        "llamagen_gpt",
        model.state_dict(),
        tokens=tokens,
        labels=labels,
        logits=logits,
        likeliest=likeliest(model, labels, 1.0),
        likeliest_with_guidance=likeliest(model, labels, 2.0),
    )
    write_shapes("llamagen", published())


if __name__ == "__main__":
    main()
