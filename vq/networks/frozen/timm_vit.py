"""Features of a frozen vision transformer of the package timm, such as DINO's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq import packages, pretrained
from vq.files import check_sha256
from vq.networks.frozen.base import FrozenWeights
from vq.registry import FEATURE_NETWORKS

DINO_WEIGHTS = "dino/dino_deitsmall16_pretrain.pth"
"""The place of DINO's ViT-S/16 below the pretrained folder."""
DINO_ADDRESS = "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"


@FEATURE_NETWORKS.register_module()  # type: ignore[untyped-decorator]
class TimmViTFeatures(FrozenWeights):
    """Turns images into the tokens after some blocks of a frozen vision transformer, as maps.

    Images are resized (bilinear, antialiased) and brought to the mean and deviation that timm knows of the
    network; the positions are interpolated to the size. All weights are `FrozenWeights`, and a
    gradient flows to the image. It is a `FeaturePyramid`: `DINODiscriminator` and `FeatureLoss` take it. A gradient
    penalty needs second derivatives, which fused attention has not: set TIMM_FUSED_ATTN=0 in the environment.

    Source: Caron et al. 2021 (DINO), https://arxiv.org/abs/2104.14294, for the default network.
    Differs from the source: the class token is left out, and no norm follows the blocks.

    Args:
        name: A vision transformer of timm.
        weights: The file of its weights (safetensors, or tensors that torch saved): a path, or a place below
            the pretrained folder. The default is the one that DINO's authors publish.
        sha256: The SHA-256 of the file, in hexadecimal; None to take any.
        blocks: The blocks after which tokens are taken, from 0, ascending.
        image_size: Images are resized to this square.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the weights are not there.
        ValueError: If there is no such transformer or block, the file holds another network's weights, or the
            size is no multiple of the patches'.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        name: str = "vit_small_patch16_224.dino",
        weights: str = DINO_WEIGHTS,
        sha256: str | None = None,
        blocks: Sequence[int] = (2, 5, 8, 11),
        image_size: int = 224,
    ) -> None:
        super().__init__()
        # Built where the file is read: frozen weights are needed even where parts are made on the meta device.
        with torch.device("cpu"):
            self.trunk = _transformer(name)
            file = _file(weights)
            check_sha256(file, sha256)
            _load(self.trunk, name, file)
        patch = int(self.trunk.patch_embed.patch_size[0])
        depth = len(self.trunk.blocks)
        if not blocks or sorted(set(blocks)) != list(blocks) or not 0 <= blocks[0] <= blocks[-1] < depth:
            raise ValueError(
                f"TimmViTFeatures: expected blocks to be ascending numbers from 0 to {depth - 1}, got {tuple(blocks)}; "
                f"{name} has {depth} blocks"
            )
        if image_size < patch or image_size % patch:
            raise ValueError(
                f"TimmViTFeatures: expected image_size to be a multiple of the patches' {patch}, got {image_size}; "
                f"take {max(1, image_size // patch) * patch}"
            )
        self.blocks, self.image_size = tuple(blocks), image_size
        self.channels: tuple[int, ...] = (int(self.trunk.embed_dim),) * len(self.blocks)
        known: dict[str, Any] = self.trunk.pretrained_cfg
        for key, colours in (("mean", known["mean"]), ("deviation", known["std"])):
            tensor = torch.tensor(colours, dtype=torch.float32, device="cpu").reshape(1, 3, 1, 1)
            self.freeze(key, tensor)
        _keep_as_buffers(self.trunk.eval())

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Images in [-1, 1] to one map a block, the shallowest first."""
        if tuple(image.shape[2:]) != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        x = ((image.to(self.mean.dtype) + 1) / 2 - self.mean) / self.deviation
        maps: list[Tensor] = self.trunk.forward_intermediates(
            x, indices=list(self.blocks), norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def _transformer(name: str) -> Any:
    timm = packages.require("timm", needed_by="TimmViTFeatures")
    # The part before the dot is the architecture, the rest names a set of its weights.
    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(
            f"TimmViTFeatures: expected a network that timm knows, got {name!r}; timm.list_models('vit_*') lists some"
        )
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except (TypeError, RuntimeError) as error:  # unknown argument, unknown set of weights
        raise ValueError(
            f"TimmViTFeatures: expected a vision transformer of timm, got {name!r} ({error}); take another name"
        ) from error
    if not all(hasattr(network, part) for part in ("forward_intermediates", "patch_embed", "blocks")):
        raise ValueError(
            f"TimmViTFeatures: expected a vision transformer of timm, got {name!r}; take another name"
        )
    return network


def _file(weights: str) -> Path:
    for file in (Path(weights).expanduser(), pretrained.root() / weights):
        if file.is_file():
            return file
    source = DINO_ADDRESS if weights == DINO_WEIGHTS else "the weights from their publisher"
    raise FileNotFoundError(
        f"TimmViTFeatures: expected weights at {pretrained.root() / weights}, which is not there; no command of this "
        f"project brings them: put {source} there, or give the path of a file as weights"
    )


def _load(network: nn.Module, name: str, file: Path) -> None:
    found = pretrained.read_tensors(file)
    wanted = network.state_dict()
    found = {key: tensor for key, tensor in found.items() if not key.startswith("head.")}
    differing = sorted(
        key
        for key in wanted.keys() | found.keys()
        if key not in wanted or key not in found or wanted[key].shape != found[key].shape
    )
    if differing:
        raise ValueError(
            f"TimmViTFeatures: expected the weights of {name} in {file}, got {len(differing)} tensors that differ, "
            f"first {differing[0]!r}; give the file of this network, or the name of the file's"
        )
    network.load_state_dict(found)


def _keep_as_buffers(network: nn.Module) -> None:
    """Turns all weights into buffers outside the state dict, in place."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=False)
