"""Janus: LlamaGen's VQ-16, trained further, inside the files of multimodal language models."""

from typing import Any

from vq.zoo.entry import Family, Model
from vq.zoo.vqgan import vqgan


def _config() -> dict[str, Any]:
    return {
        "tokenizer": vqgan(
            multipliers=(1, 1, 2, 2, 4), codes=16384, dim=8, latent=256, distance="CosineDistance"
        )
    }


# The README links the repositories and names no file; the tokenizer is `gen_vision_model.*` in the whole model.
FAMILY = Family(
    name="janus",
    title="Janus and Janus-Pro",
    dialect="llamagen",
    paper="https://arxiv.org/abs/2410.13848",
    repository="deepseek-ai/Janus",
    licence="DeepSeek Model License",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        *(
            Model(
                name=name,
                config=_config(),
                file=None,
                address=f"hf://deepseek-ai/{repository}",
                resolution=384,
            )
            for name, repository in (
                ("1.3b", "Janus-1.3B"),
                ("pro_1b", "Janus-Pro-1B"),
                ("pro_7b", "Janus-Pro-7B"),
            )
        ),
        Model(
            name="pro_1b_transformers",
            config=_config(),
            file=None,
            address="hf://deepseek-community/Janus-Pro-1B",
            resolution=384,
            dialect="janus",
        ),
    ),
)
