"""Checksums that identify a tokenizer, or a frozen network, by its weights."""

import hashlib
from collections.abc import Iterable

import torch
from jaxtyping import Shaped
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> str:
    """Computes the SHA-256 of a module's weights (names, shapes, types and values), independent of their file."""
    return _digest(module.state_dict().items())


def network_fingerprint(network: nn.Module) -> str:
    """Computes the SHA-256 of a frozen network's weights, which are buffers outside the state dict."""
    return _digest([*network.named_parameters(), *network.named_buffers()])


def _digest(tensors: Iterable[tuple[str, Shaped[Tensor, "..."]]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
