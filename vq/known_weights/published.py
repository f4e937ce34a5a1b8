"""The weight files that their publishers serve."""

from dataclasses import dataclass

_HUB = "https://huggingface.co"
_META = "https://dl.fbaipublicfiles.com"
_BEIT = "https://github.com/addf400/files/releases/download/BEiT-v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A weight file that its publisher serves. It is kept byte for byte.

    Attributes:
        groups: The words by which `vq weights` knows it.
        addresses: Where it is served, in the order in which they are tried.
        sha256: In hexadecimal: all 64 digits, the leading ones if the publisher states no more, or nothing.
        megabytes: Its approximate size.
        network: The name that timm has for the network and these weights, if a teacher is built from them.
    """

    groups: tuple[str, ...]
    addresses: tuple[str, ...]
    sha256: str
    megabytes: int
    network: str | None = None


def _dinov2(size: str, name: str, megabytes: int) -> dict[str, Published]:
    """The files of a network of DINOv2, without and with registers."""
    return {
        f"dinov2/dinov2_{size}14{registers}_pretrain.pth": Published(
            groups=("dinov2",),
            addresses=(f"{_META}/dinov2/dinov2_{size}14/dinov2_{size}14{registers}_pretrain.pth",),
            sha256="",
            megabytes=megabytes,
            network=f"vit_{name}_patch14{registers and '_reg4'}_dinov2.lvd142m",
        )
        for registers in ("", "_reg4")
    }


def _of_timm(group: str, network: str, megabytes: int, *others: str) -> dict[str, Published]:
    """A file that the authors of timm serve, and addresses of the same weights in the layout of OpenCLIP."""
    return {
        f"{group}/{network}.safetensors": Published(
            groups=(group,),
            addresses=(f"{_HUB}/timm/{network}/resolve/main/model.safetensors", *others),
            sha256="",
            megabytes=megabytes,
            network=network,
        )
    }


def _openclip(repository: str) -> str:
    return f"{_HUB}/laion/{repository}/resolve/main/open_clip_model.safetensors"


def _beitv2(network: str, digits: str) -> dict[str, Published]:
    return {
        f"beitv2/{network}.pth": Published(
            groups=("beitv2",),
            addresses=(f"{_BEIT}/{network}-{digits}.pth",),
            sha256=digits,  # the publisher's file name states no more
            megabytes=410,
        )
    }


PUBLISHED: dict[str, Published] = {
    **_beitv2("vqkd_encoder_base_decoder_1x768x12_clip", "d93179da"),
    **_beitv2("vqkd_encoder_base_decoder_3x768x12_clip", "d5036aa7"),
    **_beitv2("vqkd_encoder_base_decoder_1x768x12_dino", "663c55d7"),
    "clip/ViT-B-16.pt": Published(
        groups=("clip",),
        addresses=(
            "https://openaipublic.azureedge.net/clip/models/"
            "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
        ),
        sha256="5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        megabytes=351,
        network="vit_base_patch16_clip_quickgelu_224.openai",
    ),
    "dino/dino_deitsmall16_pretrain.pth": Published(
        groups=("dino",),
        addresses=(f"{_META}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",),
        sha256="",
        megabytes=87,
        network="vit_small_patch16_224.dino",
    ),
    "dino/dino_vitbase16_pretrain.pth": Published(
        groups=("dino",),
        addresses=(f"{_META}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",),
        sha256="",
        megabytes=343,
        network="vit_base_patch16_224.dino",
    ),
    **_dinov2("vits", "small", 88),
    **_dinov2("vitb", "base", 346),
    **_dinov2("vitl", "large", 1218),
    **_of_timm("eva", "eva02_base_patch14_224.mim_in22k", 343),
    **_of_timm("eva", "eva02_base_patch16_clip_224.merged2b", 345),
    "inception/pt_inception-2015-12-05-6726825d.pth": Published(
        groups=("inception", "pytorch_fid"),
        addresses=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        ),
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        megabytes=96,
    ),
    "mae/mae_pretrain_vit_base.pth": Published(
        groups=("mae",),
        addresses=(f"{_META}/mae/pretrain/mae_pretrain_vit_base.pth",),
        sha256="",
        megabytes=343,
        network="vit_base_patch16_224.mae",
    ),
    **_of_timm(
        "openclip",
        "vit_large_patch14_clip_224.laion2b",
        1216,
        _openclip("CLIP-ViT-L-14-laion2B-s32B-b82K"),
    ),
    **_of_timm(
        "openclip",
        "vit_gigantic_patch14_clip_224.laion2b",
        7380,
        _openclip("CLIP-ViT-bigG-14-laion2B-39B-b160k"),
    ),
    "torchvision/alexnet-owt-7be5be79.pth": Published(
        groups=("torchvision",),
        addresses=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        megabytes=244,
    ),
    "torchvision/convnext_base-6075fbad.pth": Published(
        groups=("torchvision", "convnext"),
        addresses=("https://download.pytorch.org/models/convnext_base-6075fbad.pth",),
        sha256="6075fbad",  # the publisher's file name states no more
        megabytes=354,
        network="convnext_base",
    ),
    "torchvision/convnext_small-0c510722.pth": Published(
        groups=("convnext_small",),
        addresses=("https://download.pytorch.org/models/convnext_small-0c510722.pth",),
        sha256="0c510722",  # the publisher's file name states no more
        megabytes=201,
        network="convnext_small",
    ),
    "torchvision/resnet50-0676ba61.pth": Published(
        groups=("resnet50",),
        addresses=("https://download.pytorch.org/models/resnet50-0676ba61.pth",),
        sha256="0676ba61",  # the publisher's file name states no more
        megabytes=103,
        network="resnet50",
    ),
    "torchvision/vgg16-397923af.pth": Published(
        groups=("torchvision",),
        addresses=("https://download.pytorch.org/models/vgg16-397923af.pth",),
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        megabytes=553,
    ),
    "torchvision/vit_b_16-c867db91.pth": Published(
        groups=("torchvision", "vit"),
        addresses=("https://download.pytorch.org/models/vit_b_16-c867db91.pth",),
        sha256="c867db91",  # the publisher's file name states no more
        megabytes=346,
        network="vit_base_patch16_224",
    ),
}
"""Every weight file that a publisher serves, by its name below the folder of pretrained weights."""
