"""A checksum of the weights of a module."""

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """A checksum of a module's weights, whatever file they came from: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
