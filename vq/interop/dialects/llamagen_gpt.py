"""The class-conditional transformers of LlamaGen (c2i_B to c2i_3B)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.zoo.families.llamagen import GPT_SIZES, gpt

_CLASSES, _CODES = "cls_embedding.embedding_table.weight", "tok_embeddings.weight"
_ENDS = {
    _CLASSES: "stem.classes.weight",
    _CODES: "stem.tables.weight",
    "norm.weight": "transformer.norm.weight",
    "output.weight": "head.logits.weight",
}
_BLOCK = {
    "attention_norm": "norm1",
    "attention.wqkv": "query_key_value",
    "attention.wo": "out",
    "ffn_norm": "norm2",
    "feed_forward.w2": "feed_forward.down",
}
_GATE, _VALUE, _UP = "feed_forward.w1", "feed_forward.w3", "feed_forward.up"


def describe_llamagen_gpt(state: NamedTensors, *, image_size: int) -> dict[str, Any]:
    """Returns the section `generator` of the published transformer that has some tensors.

    Args:
        state: The tensors, by the names of the project.
        image_size: The height and width in pixels of the images of its training, which the tensors do not show.

    Raises:
        InteropError: If the width and depth are not those of a published transformer, or there is no image size.
    """
    codes, width = state[_CODES].shape
    depth = _depth(state)
    sizes = {(size["width"], size["depth"]): size for size in GPT_SIZES.values()}
    if (width, depth) not in sizes:
        raise InteropError(
            f"llamagen_gpt weights: expected a published size, whose number of heads is known, got {depth} blocks of "
            f"{width} channels; give a config"
        )
    if image_size < 16 or image_size % 16:
        raise InteropError(
            f"llamagen_gpt weights: expected the option image_size, a multiple of 16, got {image_size}; the weights do "
            "not show the size of the images: it is 256 for the files c2i_*_256.pt, and 384 for c2i_*_384.pt"
        )
    section = gpt(
        **{**sizes[width, depth], "hidden": len(state[f"layers.0.{_GATE}.weight"])},
        image_size=image_size,
        codes=codes,
        classes=len(state[_CLASSES]) - 1,
    )
    return {"generator": section}


def from_llamagen_gpt(state: NamedTensors) -> NamedTensors:
    """Converts the tensors of a class-conditional transformer of LlamaGen to those of a `TransformerGenerator`.

    The two matrices of the gated MLP that are applied to its input become one.

    Raises:
        InteropError: If a name has no counterpart.
    """
    left = dict(state)
    ours = {}
    for theirs, our in _pairs(_depth(state)):
        if theirs in left:
            ours[our] = left.pop(theirs)
    for i in range(_depth(state)):
        gate, value = f"layers.{i}.{_GATE}.weight", f"layers.{i}.{_VALUE}.weight"
        if gate in left and value in left:
            ours[f"transformer.blocks.{i}.{_UP}.weight"] = torch.cat([left.pop(gate), left.pop(value)])
    if left:
        raise InteropError(
            f"llamagen_gpt weights: expected the tensors of a class-conditional transformer, got {len(left)} with no "
            f"counterpart ({', '.join(list(left)[:6])}{', ...' if len(left) > 6 else ''}); check which project wrote "
            "the weights"
        )
    return ours


def to_llamagen_gpt(state: NamedTensors) -> NamedTensors:
    """Converts the state dict of a `TransformerGenerator` to the names of LlamaGen.

    Args:
        state: The state dict of a generator with one index per position and `LlamaStyle(class_key=False)`.

    Raises:
        InteropError: If a name has no counterpart.
    """
    depth = 0
    while f"transformer.blocks.{depth}.norm1.weight" in state:
        depth += 1
    table = {our: theirs for theirs, our in _pairs(depth)}
    ups = {f"transformer.blocks.{i}.{_UP}.weight": f"layers.{i}" for i in range(depth)}
    left = [name for name in state if name not in table and name not in ups]
    if left:
        shown = f"{', '.join(left[:6])}{', ...' if len(left) > 6 else ''}"
        raise InteropError(
            f"a generator for llamagen_gpt: expected a TransformerGenerator with LlamaStyle and one index per "
            f"position, got {len(left)} tensors with no counterpart ({shown})"
        )
    theirs = {table[name]: tensor for name, tensor in state.items() if name in table}
    for name, layer in ups.items():
        theirs[f"{layer}.{_GATE}.weight"], theirs[f"{layer}.{_VALUE}.weight"] = state[name].chunk(2)
    return theirs


def _pairs(depth: int) -> Iterator[tuple[str, str]]:
    """Yields (their name, our name) of every tensor that both have."""
    yield from _ENDS.items()
    for i in range(depth):
        for theirs, ours in _BLOCK.items():
            yield f"layers.{i}.{theirs}.weight", f"transformer.blocks.{i}.{ours}.weight"


def _depth(state: NamedTensors) -> int:
    depth = 0
    while f"layers.{depth}.attention.wqkv.weight" in state:
        depth += 1
    return depth


def _check(generator: nn.Module) -> None:
    """Refuses generators in which the weights would compute something else."""
    stem, order = getattr(generator, "stem", None), getattr(generator, "order", None)
    if getattr(stem, "has_class_key", True) or order != tuple(range(len(order or ()))):
        raise InteropError(
            "llamagen_gpt weights: expected a TransformerGenerator in raster order with LlamaStyle(class_key=False), "
            "got another one; with it, the weights would give other probabilities"
        )


DIALECT = Dialect(
    name="llamagen_gpt",
    recognises=lambda state: {_CLASSES, _CODES, "layers.0.attention.wqkv.weight"} <= state.keys(),
    describe=describe_llamagen_gpt,
    translate=from_llamagen_gpt,
    write=to_llamagen_gpt,
    check=_check,
    options={"image_size": 0},  # 0: it must be given
)
"""The weights of LlamaGen's class-conditional transformers."""
