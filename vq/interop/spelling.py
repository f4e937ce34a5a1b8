"""How a project spells the layers of the one convolutional tokenizer that the field shares.

VQGAN, LlamaGen and diffusers hold the same tensors under other names. A `Spelling` is the table of one
project's names; two tables and the plan of a network (how many layers of each kind) make the pairs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vq.errors import UserError

OUR_BLOCK = {name: name for name in ("norm1", "conv1", "norm2", "conv2", "shortcut")}
OUR_ATTENTION = {name: name for name in ("norm", "query", "key", "value", "out")}
CODEBOOK = "quantizer.codebook.weight"
INITIALISED = "quantizer.codebook.initialised"
PARAMETERS = ("weight", "bias")


class InteropError(UserError, ValueError):
    """Weights that are not those of the tokenizer they were said to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """The names that a project gives to the layers.

    `{level}` and `{index}` stand for numbers; level 0 is the first that an image or a feature meets, unless
    `is_decoder_reversed` (then level 0 of the decoder paints the pixels).
    """

    project: str
    encoder_block: str
    encoder_attention: str
    downsample: str
    encoder_middle: tuple[str, str, str]
    decoder_block: str
    decoder_attention: str
    upsample: str
    decoder_middle: tuple[str, str, str]
    block: Mapping[str, str]
    attention: Mapping[str, str]
    ends: Mapping[str, str]
    codebook: str = "quantize.embedding.weight"
    is_decoder_reversed: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """The layers of an encoder or decoder, its levels in the order in which data meets them."""

    num_blocks: tuple[int, ...]
    has_attention: tuple[bool, ...]
    is_middle_attended: bool


def plan_of(names: Iterable[str], spelling: Spelling) -> tuple[Side, Side]:
    """The encoder and the decoder that a project's names belong to."""
    there = {name.removesuffix(".weight") for name in names}
    conv, query = spelling.block["conv1"], spelling.attention["query"]

    def side(block: str, attention: str, middle: str, *, is_reversed: bool) -> Side:
        levels = _count(lambda i: f"{block.format(level=i, index=0)}.{conv}" in there)
        order = range(levels)[::-1] if is_reversed else range(levels)
        return Side(
            tuple(
                _count(lambda j, i=i: f"{block.format(level=i, index=j)}.{conv}" in there)  # type: ignore[misc]
                for i in order
            ),
            tuple(f"{attention.format(level=i, index=0)}.{query}" in there for i in order),
            f"{middle}.{query}" in there,
        )

    return (
        side(
            spelling.encoder_block, spelling.encoder_attention, spelling.encoder_middle[1], is_reversed=False
        ),
        side(
            spelling.decoder_block,
            spelling.decoder_attention,
            spelling.decoder_middle[1],
            is_reversed=spelling.is_decoder_reversed,
        ),
    )


def pairs(spelling: Spelling, plan: tuple[Side, Side]) -> Iterator[tuple[str, str]]:
    """(their name, our name) of every tensor of a tokenizer with this plan, but our `initialised`."""
    for theirs, ours in _layers(spelling, plan):
        yield from ((f"{theirs}.{p}", f"{ours}.{p}") for p in PARAMETERS)
    yield spelling.codebook, CODEBOOK


def to_ours(state: Mapping[str, Tensor], spelling: Spelling) -> dict[str, Tensor]:
    """Gives every tensor our name; the codebook counts as initialised.

    Raises:
        InteropError: If a name has no counterpart.
    """
    table = dict(pairs(spelling, plan_of(state, spelling)))
    _refuse_leftovers(f"{spelling.project} weights", [name for name in state if name not in table])
    ours = {table[name]: tensor for name, tensor in state.items()}
    return ours | {INITIALISED: torch.tensor(1, dtype=torch.uint8)}


def to_theirs(state: Mapping[str, Tensor], spelling: Spelling) -> dict[str, Tensor]:
    """Gives every tensor of an `ImageTokenizer` the project's name; `initialised` is left out.

    Raises:
        InteropError: If a name has no counterpart.
    """
    table = {ours: theirs for theirs, ours in pairs(spelling, _our_plan(state))}
    kept = {name: tensor for name, tensor in state.items() if name != INITIALISED}
    _refuse_leftovers(f"a tokenizer for {spelling.project}", [name for name in kept if name not in table])
    return {table[name]: tensor for name, tensor in kept.items()}


def _layers(spelling: Spelling, plan: tuple[Side, Side]) -> Iterator[tuple[str, str]]:
    encoder, decoder = plan
    yield from ((theirs, ours) for ours, theirs in spelling.ends.items())
    yield from _side(spelling, encoder, "encoder")
    yield from _side(spelling, decoder, "decoder")


def _side(spelling: Spelling, side: Side, name: str) -> Iterator[tuple[str, str]]:
    is_encoder = name == "encoder"
    block = spelling.encoder_block if is_encoder else spelling.decoder_block
    attention = spelling.encoder_attention if is_encoder else spelling.decoder_attention
    resample = spelling.downsample if is_encoder else spelling.upsample
    last = len(side.num_blocks) - 1
    for level, (count, is_attended) in enumerate(zip(side.num_blocks, side.has_attention, strict=True)):
        their_level = last - level if spelling.is_decoder_reversed and not is_encoder else level
        step = 2 if is_attended else 1  # ours: attention stands in one row with the blocks
        for index in range(count):
            theirs = block.format(level=their_level, index=index)
            yield from _parts(theirs, f"{name}.levels.{level}.{step * index}", spelling.block)
            if is_attended:
                theirs = attention.format(level=their_level, index=index)
                yield from _parts(theirs, f"{name}.levels.{level}.{step * index + 1}", spelling.attention)
        if level != last:
            yield resample.format(level=their_level), f"{name}.levels.{level}.{step * count}.conv"
    first, between, second = spelling.encoder_middle if is_encoder else spelling.decoder_middle
    yield from _parts(first, f"{name}.middle.0", spelling.block)
    if side.is_middle_attended:
        yield from _parts(between, f"{name}.middle.1", spelling.attention)
    yield from _parts(second, f"{name}.middle.{2 if side.is_middle_attended else 1}", spelling.block)


def _parts(theirs: str, ours: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for our_part, their_part in names.items():
        yield f"{theirs}.{their_part}", f"{ours}.{our_part}"


def _our_plan(names: Iterable[str]) -> tuple[Side, Side]:
    there = set(names)

    def side(name: str) -> Side:
        levels = _count(lambda i: f"{name}.levels.{i}.0.conv1.weight" in there)
        attended = tuple(f"{name}.levels.{i}.1.query.weight" in there for i in range(levels))
        counts = tuple(
            _count(lambda j, i=i, a=a: f"{name}.levels.{i}.{(2 if a else 1) * j}.conv1.weight" in there)  # type: ignore[misc]
            for i, a in enumerate(attended)
        )
        return Side(counts, attended, f"{name}.middle.1.query.weight" in there)

    return side("encoder"), side("decoder")


def _count(is_there: Callable[[int], bool]) -> int:
    count = 0
    while is_there(count):
        count += 1
    return count


def _refuse_leftovers(place: str, names: list[str]) -> None:
    if names:
        raise InteropError(
            f"{place}: expected the tensors of a convolutional tokenizer with one codebook, got {len(names)} with no "
            f"counterpart ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''}); check which project wrote the "
            "weights, and drop what is not the tokenizer's"
        )
