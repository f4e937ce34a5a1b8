"""The classes of vector-quantize-pytorch that have a counterpart, and what their readers and writers share."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from vq.interop.dialect import NamedTensors
from vq.pretrained import digest

_SIZES: Mapping[str, Any] = {"dim": None, "codebook_size": None}
_VQ: Mapping[str, Any] = {
    **_SIZES,
    "codebook_dim": None,
    "use_cosine_sim": False,
    "decay": 0.8,
    "eps": 1e-5,
    "commitment_weight": 1.0,
    "kmeans_init": False,
    "learnable_codebook": False,
    "ema_update": None,  # the opposite of learnable_codebook
    "rotation_trick": None,  # True if the vectors have more than one channel
}
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "VectorQuantize": {**_VQ, "heads": 1, "separate_codebook_per_head": False},
    "ResidualVQ": {**_VQ, "num_quantizers": None, "shared_codebook": False},
    "FSQ": {"levels": (), "dim": None},
    "LFQ": {
        **_SIZES,
        "entropy_loss_weight": 0.1,
        "commitment_loss_weight": 0.0,
        "diversity_gamma": 1.0,
        "spherical": False,
        "has_projections": None,
    },
    "SimVQ": {
        **_SIZES,
        "frozen_codebook_dim": None,
        "rotation_trick": True,
        "input_to_quantize_commit_loss_weight": 0.25,
    },
}
"""The classes of vector-quantize-pytorch that are read, and the arguments that have a counterpart, with their defaults.

None is the value that follows from the tensors.
"""
TEMPERATURE = 0.01
"""The temperature of the entropies of LFQ: 1 over the default of `inv_temperature`, an argument of its `forward`."""
FSQ_EPS = -1e-3


def on_cpu(state: NamedTensors) -> dict[str, Shaped[Tensor, "..."]]:
    """The tensors on the CPU; those on the meta device stay there."""
    return {name: tensor if tensor.is_meta else tensor.detach().cpu() for name, tensor in state.items()}


def identity(bits: int) -> dict[str, Shaped[Tensor, "..."]]:
    """The linear maps of a bottleneck that changes nothing."""
    eye, zeros = torch.eye(bits), torch.zeros(bits)
    return {
        "project_in.weight": eye,
        "project_in.bias": zeros,
        "project_out.weight": eye.clone(),
        "project_out.bias": zeros.clone(),
    }


def reversed_bits(maps: NamedTensors) -> dict[str, Shaped[Tensor, "..."]]:
    """The linear maps with the channels between them in the opposite order; its own inverse.

    The first channel is the highest bit of an index of LFQ, and the lowest bit of an index here.
    """
    return {
        "project_in.weight": maps["project_in.weight"].flip(0),
        "project_in.bias": maps["project_in.bias"].flip(0),
        "project_out.weight": maps["project_out.weight"].flip(1),
        "project_out.bias": maps["project_out.bias"],
    }


def is_identity(maps: NamedTensors) -> bool:
    """Whether the linear maps change nothing; False for tensors on the meta device, whose values are not known."""
    return not maps["project_in.weight"].is_meta and digest(maps) == digest(
        identity(len(maps["project_in.bias"]))
    )
