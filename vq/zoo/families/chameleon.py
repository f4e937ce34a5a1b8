"""Chameleon: the VQGAN of a mixed-modal language model, with attention in the middle only."""

from vq.zoo.entry import Family, Model
from vq.zoo.vqgan import vqgan

FAMILY = Family(
    name="chameleon",
    title="Chameleon",
    dialect="taming",
    paper="https://arxiv.org/abs/2405.09818",
    repository="facebookresearch/chameleon",
    licence="Chameleon Research License",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        Model(
            name="vqgan",
            config={
                "tokenizer": vqgan(
                    multipliers=(1, 1, 2, 2, 4),
                    codes=8192,
                    dim=256,
                    latent=256,
                    attention=False,
                    middle_attention=True,
                )
            },
            file="vqgan.ckpt",
            address="https://ai.meta.com/resources/models-and-libraries/chameleon-downloads",
            resolution=512,
        ),
    ),
)
