"""BEiT v2: the tokenizers of VQ-KD, whose codes predict the features of a teacher. They have no image decoder."""

from typing import Any

from vq.zoo.entry import Family, Model, Scores

_ADDRESS = "https://github.com/addf400/files/releases/download/BEiT-v2"


def _network(kind: str, patches: dict[str, Any], depth: int, **channels: int) -> dict[str, Any]:
    positions = {"type": "vq.layers.LearnedPositions", "width": 768, "grid": [14, 14], "offset": 0.1}
    return {
        "type": f"vq.networks.{kind}",
        "patches": {"type": "vq.layers.PixelPatches", **patches},
        "transformer": {
            "type": "vq.layers.Transformer",
            "width": 768,
            "depth": depth,
            "num_heads": 12,
            "positions": positions,
        },
        "num_extra_tokens": 1,
        **channels,
    }


def _model(teacher: str, depth: int, channels: int, digits: str, scores: tuple[Scores, ...] = ()) -> Model:
    section = {
        "type": "vq.tokenizers.FeatureTokenizer",
        "encoder": _network("ViTEncoder", {"size": 16}, 12, out_channels=32),
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {
                "type": "vq.quantizers.SphericalEMACodebook",
                "size": 8192,
                "dim": 32,
                "decay": 0.99,
                "init": {"type": "vq.quantizers.KMeansInit"},
            },
            "distance": {"type": "vq.quantizers.CosineDistance"},
            "commitment_weight": 1.0,
        },
        "decoder": _network("ViTDecoder", {"size": 1, "channels": channels}, depth, in_channels=32),
    }
    name = f"vqkd_encoder_base_decoder_{depth}x768x12_{teacher}"
    return Model(
        name=name,
        config={"tokenizer": section},
        file=f"{name}.pth",  # as `vq weights beitv2` names it
        address=f"{_ADDRESS}/{name}-{digits}.pth",
        sha256=digits,  # the file's name states no more
        resolution=224,
        scores=scores,
        page="vqkd/clip_8192_imagenet_ddp" if teacher == "clip" and depth == 1 else None,
        options={"with_decoder": True},
    )


FAMILY = Family(
    name="beitv2",
    title="BEiT v2",
    dialect="beitv2",
    paper="https://arxiv.org/abs/2208.06366",
    repository="microsoft/unilm",
    licence="MIT",
    value_range=(-1.0, 1.0),
    parity="recorded",
    models=(
        _model(
            "clip",
            1,
            512,
            "d93179da",
            (
                Scores(
                    values={"codebook_usage": 1.0, "perplexity": 7694.0, "teacher_cosine": 0.1643},
                    data="ImageNet val",
                    source="the reference framework's table",
                    size=224,
                    note="perplexity published as 8.948 nats",
                ),
            ),
        ),
        _model("clip", 3, 512, "d5036aa7"),
        _model("dino", 1, 768, "663c55d7"),
    ),
)
