"""RQ-VAE: tokenizers with the networks of VQGAN and a stack of four codes per position from one codebook."""

from collections.abc import Sequence
from typing import Any

from vq.zoo.entry import Family, Model
from vq.zoo.vqgan import vqgan

_ARCHIVES = "https://twg.kakaocdn.net/brainrepo/models/RQVAE"


def with_residuals(tokenizer: dict[str, Any], *, codes: int, dim: int, depth: int) -> dict[str, Any]:
    """The section `tokenizer` of a VQGAN with residual quantization in place of its own.

    Args:
        tokenizer: The section of the VQGAN.
        codes: The size of the codebook, which all stages share.
        dim: The dimension of the codes.
        depth: The number of codes per position.
    """
    stage = {
        "type": "vq.quantizers.VectorQuantizer",
        "codebook": {"type": "vq.quantizers.EMACodebook", "size": codes, "dim": dim},
        "distance": {"type": "vq.quantizers.EuclideanDistance"},
    }
    quantizer = {"type": "vq.quantizers.ResidualQuantizer", "quantizers": [stage], "depth": depth}
    return {**tokenizer, "quantizer": quantizer}


def _model(name: str, archive: str, *, codes: int = 16384, attention: bool | Sequence[int] = True) -> Model:
    """A model whose archive also holds a transformer; the publisher does not name the files in it."""
    section = vqgan(multipliers=(1, 1, 2, 2, 4, 4), codes=codes, dim=256, latent=256, attention=attention)
    return Model(
        name=name,
        config={"tokenizer": with_residuals(section, codes=codes, dim=256, depth=4)},
        file=None,
        address=f"{_ARCHIVES}/{archive}",
    )


FAMILY = Family(
    name="rq_vae",
    title="RQ-VAE",
    dialect="rq_vae",
    paper="https://arxiv.org/abs/2203.01941",
    repository="kakaobrain/rq-vae-transformer",
    licence="CC-BY-NC-SA-4.0",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model("ffhq", "d47570aeff6ba300735606a806f54663/ffhq.tar.gz", codes=2048, attention=(4,)),
        _model("church", "deeb3e0ac6e09923754e3e594ede7b01/church.tar.gz"),
        _model("cat", "92b4e6a9ace09c9ab8ff9d3b3e688367/cat.tar.gz"),
        _model("bedroom", "06b72c164cd2fe64fc8ebd6b42b0040f/bedroom.tar.gz"),
        _model("imagenet", "7518a004fe39120fcffbba76005dc6c3/imagenet_480M.tar.gz"),
        _model("imagenet_50e", "6714b47bb9382076923590eff08b1ee5/imagenet_1.4B_rqvae_50e.tar.gz"),
    ),
)
