"""Modules of vector-quantize-pytorch, by the name of their class and the arguments of their constructor."""

from typing import Any

import torch
from torch import Tensor, nn

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "averages": ("VectorQuantize", {"dim": 8, "codebook_size": 32, "decay": 0.9, "commitment_weight": 0.25}),
    "cosine": (
        "VectorQuantize",
        {"dim": 8, "codebook_size": 32, "use_cosine_sim": True, "rotation_trick": False},
    ),
    "k_means": ("VectorQuantize", {"dim": 8, "codebook_size": 16, "kmeans_init": True, "eps": 1e-4}),
    "learned": (
        "VectorQuantize",
        {"dim": 8, "codebook_size": 32, "learnable_codebook": True, "ema_update": False},
    ),
    "projected": (
        "VectorQuantize",
        {"dim": 12, "codebook_size": 32, "codebook_dim": 4, "use_cosine_sim": True},
    ),
    "heads": ("VectorQuantize", {"dim": 12, "codebook_size": 16, "codebook_dim": 6, "heads": 2}),
    "separate_heads": (
        "VectorQuantize",
        {
            "dim": 10,
            "codebook_size": 16,
            "codebook_dim": 4,
            "heads": 3,
            "separate_codebook_per_head": True,
            "use_cosine_sim": True,
        },
    ),
    "residual": ("ResidualVQ", {"dim": 8, "num_quantizers": 3, "codebook_size": 16}),
    "residual_shared": (
        "ResidualVQ",
        {"dim": 8, "num_quantizers": 3, "codebook_size": 16, "shared_codebook": True, "kmeans_init": True},
    ),
    "residual_projected": (
        "ResidualVQ",
        {"dim": 12, "num_quantizers": 2, "codebook_size": 16, "codebook_dim": 6, "use_cosine_sim": True},
    ),
    "fsq": ("FSQ", {"levels": [8, 5, 5, 5]}),
    "fsq_projected": ("FSQ", {"levels": [7, 6, 5], "dim": 10}),
    "lfq": ("LFQ", {"codebook_size": 64, "commitment_loss_weight": 0.25}),
    "lfq_projected": ("LFQ", {"codebook_size": 64, "dim": 10, "diversity_gamma": 2.0}),
    "bsq": ("LFQ", {"codebook_size": 64, "dim": 10, "spherical": True, "entropy_loss_weight": 0.2}),
    "simvq": ("SimVQ", {"dim": 8, "codebook_size": 32}),
}


def trained(name: str, arguments: dict[str, Any]) -> nn.Module:
    """A module in eval mode whose averages have moved."""
    import vector_quantize_pytorch

    module: nn.Module = getattr(vector_quantize_pytorch, name)(**arguments)
    for _ in range(3):
        module(vectors(module))
    return module.eval()


def vectors(module: nn.Module) -> Tensor:
    """Random vectors for a module."""
    dim = module.frozen_codebook.shape[1] if hasattr(module, "frozen_codebook") else dim_of(module)
    return torch.randn(1, 200, dim)


def dim_of(module: nn.Module) -> int:
    if hasattr(module, "layers"):  # ResidualVQ
        has_maps = isinstance(module.project_in, nn.Linear)
        return module.project_in.in_features if has_maps else module.codebook_dim
    return module.dim
