"""A checksum that identifies a tokenizer by its weights."""

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """Computes the SHA-256 of a module's weights (names, shapes, types and values), independent of their file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
