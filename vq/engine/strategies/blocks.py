"""The blocks that networks are made of."""

from collections.abc import Iterator

from torch import nn

from vq.quantizers import Quantizer

CONTAINERS = (nn.Sequential, nn.ModuleList)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model's networks: the modules in lists and sequences that consist of several layers.

    Blocks do not contain each other, and quantizers have none.
    """
    return [block for block in _blocks(model, is_listed=False) if any(True for _ in block.parameters())]


def _blocks(module: nn.Module, *, is_listed: bool) -> Iterator[nn.Module]:
    is_container = isinstance(module, CONTAINERS)
    if isinstance(module, Quantizer):
        return
    if is_listed and not is_container and any(True for _ in module.children()):
        yield module
        return
    for child in module.children():
        yield from _blocks(child, is_listed=is_container)
