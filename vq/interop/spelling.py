"""The names of the layers of the VQGAN tokenizer in different projects, and their translation.

VQGAN, LlamaGen and diffusers store the same tensors under different names. A `Spelling` lists the names of one project.
Together with the plan of a network (how many layers of each kind it has), it gives pairs of their names and ours.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from vq.interop.dialect import InteropError, NamedTensors

OUR_BLOCK = {name: name for name in ("norm1", "conv1", "norm2", "conv2", "shortcut")}
OUR_ATTENTION = {name: name for name in ("norm", "query", "key", "value", "out")}
CODEBOOK = "quantizer.codebook.weight"
INITIALISED = "quantizer.codebook.initialised"
PARAMETERS = ("weight", "bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """The names that a project gives to the layers.

    `{level}` and `{index}` stand for numbers. Level 0 is the first one that the data pass through, except in the
    decoder if `is_decoder_reversed`, where it is the last.

    Attributes:
        project: The name of the project.
        encoder_block: The name of a residual block of the encoder.
        encoder_attention: The name of an attention layer of the encoder.
        downsample: The name of the convolution that halves the resolution.
        encoder_middle: The names of the block, attention and block at the end of the encoder.
        decoder_block: The name of a residual block of the decoder.
        decoder_attention: The name of an attention layer of the decoder.
        upsample: The name of the convolution that follows the doubling of the resolution.
        decoder_middle: The names of the block, attention and block at the beginning of the decoder.
        block: Our names of the layers of a block -> theirs.
        attention: Our names of the layers of an attention layer -> theirs.
        ends: Our names of the first and last layers -> theirs.
        codebook: The name of the codebook.
        is_decoder_reversed: Whether the levels of the decoder are numbered from the last to the first.
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
    """The layers of an encoder or decoder; levels are in the order in which the data pass through them.

    Attributes:
        num_blocks: The number of residual blocks of each level.
        has_attention: Whether each level has attention.
        is_middle_attended: Whether there is attention between the two middle blocks.
    """

    num_blocks: tuple[int, ...]
    has_attention: tuple[bool, ...]
    is_middle_attended: bool


def plan_of(names: Iterable[str], spelling: Spelling) -> tuple[Side, Side]:
    """Determines the layers of the encoder and the decoder from the names of their tensors.

    Args:
        names: The names of all tensors in the project's state dict.
        spelling: The names of the project.
    """
    there = {name.removesuffix(".weight") for name in names}
    conv, query = spelling.block["conv1"], spelling.attention["query"]

    def side(block: str, attention: str, middle: str, *, is_reversed: bool) -> Side:
        levels = _count(there, lambda i: f"{block.format(level=i, index=0)}.{conv}")
        order = range(levels)[::-1] if is_reversed else range(levels)

        def num_blocks(level: int) -> int:
            return _count(there, lambda i: f"{block.format(level=level, index=i)}.{conv}")

        return Side(
            tuple(num_blocks(level) for level in order),
            tuple(f"{attention.format(level=level, index=0)}.{query}" in there for level in order),
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
    """Yields (their name, our name) of every tensor of a tokenizer, except our `initialised`.

    Args:
        spelling: The names of the project.
        plan: The layers of the encoder and the decoder.
    """
    for theirs, ours in _layers(spelling, plan):
        yield from ((f"{theirs}.{p}", f"{ours}.{p}") for p in PARAMETERS)
    yield spelling.codebook, CODEBOOK


def to_ours(state: NamedTensors, spelling: Spelling) -> NamedTensors:
    """Renames every tensor to our name, and marks the codebook as initialised.

    Args:
        state: The tensors of the project, by name.
        spelling: The names of the project.

    Raises:
        InteropError: If a name has no counterpart.
    """
    table = dict(pairs(spelling, plan_of(state, spelling)))
    _refuse_leftovers(f"{spelling.project} weights", [name for name in state if name not in table])
    ours = {table[name]: tensor for name, tensor in state.items()}
    return ours | {INITIALISED: torch.tensor(1, dtype=torch.uint8)}


def to_theirs(state: NamedTensors, spelling: Spelling) -> NamedTensors:
    """Renames every tensor of an `ImageTokenizer` to the project's name, and drops `initialised`.

    Args:
        state: The state dict of the tokenizer.
        spelling: The names of the project.

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
        step = 2 if is_attended else 1  # our levels list blocks and attention layers alternately
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
        levels = _count(there, lambda i: f"{name}.levels.{i}.0.conv1.weight")
        attended = tuple(f"{name}.levels.{i}.1.query.weight" in there for i in range(levels))

        def num_blocks(level: int) -> int:
            step = 2 if attended[level] else 1
            return _count(there, lambda i: f"{name}.levels.{level}.{step * i}.conv1.weight")

        counts = tuple(num_blocks(level) for level in range(levels))
        return Side(counts, attended, f"{name}.middle.1.query.weight" in there)

    return side("encoder"), side("decoder")


def _count(there: Collection[str], numbered: Callable[[int], str]) -> int:
    """Counts how many of the names with the numbers 0, 1, ... exist without a gap."""
    count = 0
    while numbered(count) in there:
        count += 1
    return count


def _refuse_leftovers(place: str, names: list[str]) -> None:
    if names:
        raise InteropError(
            f"{place}: expected the tensors of a convolutional tokenizer with one codebook, got {len(names)} with no "
            f"counterpart ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''}); check which project wrote the "
            "weights, and remove the tensors that do not belong to the tokenizer"
        )
