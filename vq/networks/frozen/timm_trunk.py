"""Networks of timm as maps from images to one feature vector per patch, with weights from a file."""

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vq import known_weights, packages, pretrained
from vq.files import check_sha256
from vq.networks.frozen.timm_layouts import is_of_torchvision, to_timm
from vq.networks.sizes import check_divisible
from vq.ops.numerics.constants import constant

_CURE = "set weights to a file of this network, or name to the network of the file"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class TimmTrunk(nn.Module):
    """Computes one feature vector per patch with a vision transformer or ConvNeXt of timm.

    A vision transformer gives its patch tokens after the last norm; class and register tokens are dropped. Its
    position embeddings are interpolated to the size of the image. A ConvNeXt gives its last feature map. Images are
    normalized with the mean and standard deviation that timm lists for the weights; a name without weights, such as
    `vit_base_patch16_224`, stands for those of torchvision, which expect the mean and deviation of ImageNet.

    Args:
        place: The class that uses the trunk. Error messages start with it.
        name: The name that timm has for a network and its weights, such as `vit_base_patch16_224.dino`.
        weights: The weight file (safetensors, or tensors saved by torch): a path, a path below the pretrained folder,
            `published` for the file that `vq weights` fetches for this name, or None for random weights.
        sha256: The SHA-256 of the file, in hexadecimal; None accepts any file.
        with_projection: Whether the projection of a CLIP model to the space of its texts follows.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the weight file does not exist. The message says which command fetches it.
        ValueError: If the network does not exist, is of another kind or has no projection, or the file does not hold
            its weights.
    """

    def __init__(
        self, *, place: str, name: str, weights: str | None, sha256: str | None, with_projection: bool
    ) -> None:
        super().__init__()
        _check_request(place, name, with_projection=with_projection)
        file = None if weights is None else weight_file(place, name, weights)
        self.network = _of_known_kind(place, name, with_projection=with_projection)
        self.channels = int(self.network.head.out_features if with_projection else self.network.num_features)
        self.downsample_factor = _patch_size(self.network)
        self._place, self._has_projection = place, with_projection
        of_torchvision = "." not in name
        self.colours = colours(self.network, of_torchvision=of_torchvision)
        self.interpolation: str = (
            "bilinear" if of_torchvision else self.network.pretrained_cfg["interpolation"]
        )
        if file is not None:
            found = load(place, self.network, name, file, sha256)
            _check_name(place, name, of_torchvision=is_of_torchvision(found))

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b rows columns channels"]:
        """Computes the features of images in [-1, 1].

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible(self._place, image, self.downsample_factor)
        mean, deviation = (constant(_colour, *values, device=image.device) for values in self.colours)
        normalized = ((image + 1) / 2 - mean) / deviation
        weight = next(chain(self.network.parameters(), self.network.buffers()))
        x = self.network.forward_features(normalized.to(weight.dtype))
        if x.ndim == 4:  # ConvNeXt
            return rearrange(x, "b c h w -> b h w c")
        patches = x[:, self.network.num_prefix_tokens :]
        if isinstance(self.network.norm, nn.Identity):  # timm applies the last norm after pooling
            patches = self.network.fc_norm(patches)
        if self._has_projection:
            patches = self.network.head(patches)
        return rearrange(patches, "b (h w) c -> b h w c", h=image.shape[2] // self.downsample_factor)


def create(place: str, name: str, **arguments: Any) -> Any:
    """Makes a network of timm with random weights.

    Args:
        place: The class that uses the network. Error messages start with it.
        name: The name of the network, which may be followed by a dot and the name of its weights.
        **arguments: Arguments of the network's class.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        ValueError: If timm does not know the network or the name of its weights, or the network is neither a vision
            transformer that takes images of any size nor a ConvNeXt.
    """
    timm = _timm_with(place, name)
    if timm.models.model_entrypoint(name.partition(".")[0]).__module__ != "timm.models.convnext":
        arguments["dynamic_img_size"] = True
    try:
        return timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, RuntimeError) as error:  # an unknown argument, or an unknown set of weights
        raise ValueError(
            f"{place}: expected a vision transformer of timm, got {name!r} ({error}); take another name"
        ) from error


def create_classifier(place: str, name: str) -> Any:
    """Makes a classifier of timm with random weights.

    Args:
        place: The class that uses the network. Error messages start with it.
        name: The name of the network, which may be followed by a dot and the name of its weights.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        ValueError: If timm does not know the network or the name of its weights, or the network has no classes.
    """
    timm = _timm_with(place, name)
    try:
        network = timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # an unknown set of weights
        raise ValueError(
            f"{place}: expected the name of weights that timm knows, got {name!r} ({error})"
        ) from error
    if not network.num_classes:
        raise ValueError(f"{place}: expected a classifier, got {name!r}, which has no classes; take resnet50")
    return network


def weight_file(place: str, name: str, weights: str) -> Path:
    """Finds the weight file of a network of timm.

    Args:
        place: The class that uses the network. Error messages start with it.
        name: The name that timm has for the network and its weights.
        weights: A path, a path below the pretrained folder, or `published` for the file that `vq weights` fetches.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the file does not exist. The message says which command fetches it.
        ValueError: If timm does not know the network, or no file is published for it.
    """
    _timm_with(place, name)
    if (file := known_weights.located(weights, name)) is not None:
        return file
    if weights != known_weights.AS_PUBLISHED:
        return pretrained.path(weights)
    known = known_weights.of_networks()
    if name not in known:
        raise ValueError(
            f"{place}: expected weights to be the path of a file, for no command fetches the weights of {name!r}; "
            f"vq weights has those of {', '.join(known)}"
        )
    return pretrained.path(known[name])


def load(
    place: str, network: nn.Module, name: str, file: Path, sha256: str | None
) -> dict[str, Shaped[Tensor, "..."]]:
    """Loads the weights of a network of timm in place; returns the tensors of the file under their original names.

    Args:
        place: The class that uses the network. Error messages start with it.
        network: The network. Weights of its classifier are loaded if it has one.
        name: Its name in timm.
        file: The weight file, in the layout of timm or of its publisher.
        sha256: The SHA-256 of the file, in hexadecimal; None accepts any file.

    Raises:
        ValueError: If the file does not hold the weights of this network, or has another SHA-256.
    """
    check_sha256(file, sha256)
    found, wanted = pretrained.read_tensors(file), network.state_dict()
    try:
        named = to_timm(found, network)
    except ValueError as error:
        raise ValueError(
            f"{place}: expected the weights of {name} in {file}, but {error}; {_CURE}"
        ) from error
    # Files of before 2018 lack these counts, which only training uses.
    named = {key: wanted[key] for key in wanted if key.endswith(".num_batches_tracked")} | named
    pooling = ("head.", "attn_pool.")  # not for patches
    named = {key: tensor for key, tensor in named.items() if key in wanted or not key.startswith(pooling)}
    differing = sorted(
        key
        for key in wanted.keys() | named.keys()
        if key not in wanted or key not in named or wanted[key].shape != named[key].shape
    )
    if differing:
        raise ValueError(
            f"{place}: expected the weights of {name} in {file}, got {len(differing)} tensors that differ, first "
            f"{_difference(differing[0], wanted, named)}; {_CURE}"
        )
    network.load_state_dict(named)
    return found


def colours(network: Any, *, of_torchvision: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and the standard deviation of each colour with which images in [0, 1] are normalized.

    Args:
        network: The network of timm.
        of_torchvision: Whether its weights are those of torchvision, which timm does not list.
    """
    if of_torchvision:
        return _IMAGENET
    return tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])


def keep_as_buffers(network: nn.Module) -> None:
    """Replaces all parameters of a network by buffers outside the state dict, in place."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=False)


def _timm_with(place: str, name: str) -> Any:
    """Imports timm, which has to know a network of this name."""
    timm: Any = packages.require("timm", needed_by=place)
    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(
            f"{place}: expected a network that timm knows, got {name!r}; timm.list_models('vit_*') lists some"
        )
    return timm


def _check_request(place: str, name: str, *, with_projection: bool) -> None:
    """Checks what the name says: whether there is a projection, and which activation function the weights have."""
    architecture, _, tag = name.partition(".")
    if with_projection and ("_clip_" not in architecture or "_ft_" in tag):
        raise ValueError(
            f"{place}: with_projection expects a CLIP model, got {name!r}; leave with_projection out"
        )
    quick = f"{architecture.replace('_clip_', '_clip_quickgelu_')}.{tag}"
    if quick != name and quick in _timm_with(place, name).list_pretrained("*_clip_quickgelu_*"):
        raise ValueError(
            f"{place}: expected the network that the weights were trained with, got {name!r}, which has another "
            f"activation function; take {quick!r}"
        )


def _of_known_kind(place: str, name: str, *, with_projection: bool) -> Any:
    """Makes a network whose features have known positions."""
    network = create(place, name, **({} if with_projection else {"num_classes": 0}))
    models = _timm_with(place, name).models
    if isinstance(network, models.ConvNeXt) and not with_projection:
        network.head = nn.Identity()
    elif not isinstance(network, models.VisionTransformer | models.Eva):
        raise ValueError(
            f"{place}: expected a vision transformer or ConvNeXt of timm, got {name!r}, a {type(network).__name__}; "
            "take another name"
        )
    elif getattr(network, "attn_pool", None) is not None:  # SigLIP's, which no patch token depends on
        network.attn_pool = None
    return network


def _patch_size(network: Any) -> int:
    if hasattr(network, "patch_embed"):
        return int(network.patch_embed.patch_size[0])
    return int(network.feature_info[-1]["reduction"])


def _check_name(place: str, name: str, *, of_torchvision: bool) -> None:
    """Checks that the name says which weights these are, because that decides how images are normalized."""
    architecture, _, tag = name.partition(".")
    if of_torchvision and tag:
        raise ValueError(
            f"{place}: the weights are of torchvision, but {name!r} is the name of others, for which images are "
            f"normalized differently; take name={architecture!r}"
        )
    if not of_torchvision and not tag:
        known = packages.require("timm", needed_by=place).list_pretrained(f"{name}.*")
        raise ValueError(
            f"{place}: expected the name of a network and its weights, because they decide how images are normalized, "
            f"got {name!r}, which stands for the weights of torchvision; take one of {', '.join(known)}"
        )


def _difference(key: str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    shapes = [str(tuple(side[key].shape)) if key in side else "none" for side in (found, wanted)]
    return f"{key!r} (the file has {shapes[0]}, the network {shapes[1]})"


def _colour(*values: float) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(values).reshape(3, 1, 1)
