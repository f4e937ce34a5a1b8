"""The VQ models of latent diffusion, trained on OpenImages."""

from typing import Any

from vq.zoo.entry import Family, Model, Scores
from vq.zoo.vqgan import vqgan

_F4, _F8, _F16 = (1, 2, 4), (1, 2, 2, 4), (1, 1, 2, 2, 4)


def _model(
    name: str,
    networks: dict[str, Any],
    *,
    codes: int,
    dim: int,
    fid: float,
    psnr: float,
) -> Model:
    scores = Scores(
        values={"fid": fid, "psnr": psnr},
        data="ImageNet val",
        source="CompVis/latent-diffusion, README.md; arXiv 2112.10752, table 8",
        size=256,
        reference="ImageNet val",
    )
    return Model(
        name=name,
        config={"tokenizer": vqgan(codes=codes, dim=dim, latent=dim, **networks)},
        file="model.ckpt",
        address=f"https://ommer-lab.com/files/latent-diffusion/{name}.zip",
        scores=(scores,),
    )


FAMILY = Family(
    name="latent_diffusion",
    title="Latent diffusion (VQ models)",
    dialect="taming",
    paper="https://arxiv.org/abs/2112.10752",
    repository="CompVis/latent-diffusion",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model(
            "vq-f4",
            {"multipliers": _F4, "attention": False, "middle_attention": True},
            codes=8192,
            dim=3,
            fid=0.58,
            psnr=27.43,
        ),
        _model(
            "vq-f4-noattn", {"multipliers": _F4, "attention": False}, codes=8192, dim=3, fid=1.06, psnr=25.21
        ),
        _model("vq-f8", {"multipliers": _F8}, codes=16384, dim=4, fid=1.14, psnr=23.07),
        _model("vq-f8-n256", {"multipliers": _F8}, codes=256, dim=4, fid=1.49, psnr=22.35),
        _model("vq-f16", {"multipliers": _F16}, codes=16384, dim=8, fid=5.15, psnr=20.83),
    ),
)
