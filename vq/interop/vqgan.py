"""Reads the architecture of a VQGAN from the names and shapes of its tensors."""

from typing import Any

from torch import nn

from vq.interop.dialect import InteropError, NamedTensors
from vq.interop.spelling import Side, Spelling, plan_of
from vq.quantizers import VectorQuantizer
from vq.zoo.vqgan import vqgan

GROUPS = 32
"""The number of groups in every norm of a VQGAN, for any width. It cannot be read from the weights."""
PIXELS = (-1.0, 1.0)
"""The values of black and white that a VQGAN takes. They cannot be read from the weights either."""


def describe_vqgan(state: NamedTensors, spelling: Spelling, *, distance: str) -> dict[str, Any]:
    """Returns the section `tokenizer` of the VQGAN that has some tensors.

    Args:
        state: The tensors by the names of the project.
        spelling: Its names.
        distance: The class in `vq.quantizers` of the distance, which names and shapes do not show.

    Raises:
        InteropError: If a tensor that tells a size is missing, or the encoder and the decoder do not mirror each
            other.
    """
    codes, dim = codebook_shape(state, spelling.codebook, spelling.project)
    section = vqgan(codes=codes, dim=dim, distance=distance, **describe_networks(state, spelling))
    return {"tokenizer": section}


def describe_networks(state: NamedTensors, spelling: Spelling) -> dict[str, Any]:
    """Returns the arguments of `vq.zoo.vqgan.vqgan` that the encoder and the decoder determine.

    Args:
        state: The tensors by the names of the project.
        spelling: Its names.

    Raises:
        InteropError: If a tensor that tells a size is missing, or the encoder and the decoder do not mirror each
            other.
    """
    encoder, decoder = plan_of(state, spelling)
    levels = len(encoder.num_blocks)
    stem, head = (
        _shape(state, spelling.project, f"{spelling.ends['encoder.stem']}.weight", 4),
        f"{spelling.ends['encoder.head']}.weight",
    )
    conv = spelling.block["conv1"]
    widths = [
        _shape(
            state, spelling.project, f"{spelling.encoder_block.format(level=level, index=0)}.{conv}.weight", 4
        )[0]
        for level in range(levels)
    ]
    if not levels or not _is_mirrored(encoder, decoder) or any(width % stem[0] for width in widths):
        raise InteropError(
            f"{spelling.project} weights: expected an encoder and a decoder with equal levels, the decoder with one "
            f"more block in each, got {encoder.num_blocks} and {decoder.num_blocks[::-1]} blocks, and {widths} "
            f"channels after {stem[0]}; give a config of these networks"
        )
    attended = [level for level, has in enumerate(encoder.has_attention) if has]
    is_usual = attended == [levels - 1] or not attended
    return {
        "width": stem[0],
        "multipliers": [width // stem[0] for width in widths],
        "latent": _shape(state, spelling.project, head, 4)[0],
        "num_blocks": encoder.num_blocks[0],
        "attention": bool(attended) if is_usual else attended,
        "middle_attention": None
        if encoder.is_middle_attended == bool(attended)
        else encoder.is_middle_attended,
    }


def codebook_shape(state: NamedTensors, name: str, project: str) -> tuple[int, int]:
    """Returns the number of rows and columns of a codebook.

    Args:
        state: The tensors by the names of the project.
        name: The name of the codebook.
        project: The name of the dialect.

    Raises:
        InteropError: If it is missing or not a matrix.
    """
    rows, columns = _shape(state, project, name, 2)
    return rows, columns


def check_distance(tokenizer: nn.Module, project: str, distance: str) -> None:
    """Refuses tokenizers that would select other codes.

    Args:
        tokenizer: The tokenizer that is to get the weights.
        project: The name of the dialect.
        distance: The class in `vq.quantizers` of the distance with which the codes were learned.

    Raises:
        InteropError: If the quantizer or its distance is of another class.
    """
    quantizer = getattr(tokenizer, "quantizer", None)
    if not isinstance(quantizer, VectorQuantizer):
        raise InteropError(
            f"{project} weights: expected a tokenizer with a VectorQuantizer, got {type(quantizer).__name__}; use a "
            "config with one"
        )
    if type(quantizer.distance).__name__ != distance:
        raise InteropError(
            f"{project} weights: expected a quantizer with {distance}, got {type(quantizer.distance).__name__}; the "
            "codes were learned with the former, and the latter would select other codes"
        )


def check_vqgan(
    tokenizer: nn.Module, project: str, distance: str, pixels: tuple[float, float] = PIXELS
) -> None:
    """Refuses tokenizers in which the weights of a VQGAN would compute something else.

    Args:
        tokenizer: The tokenizer that is to get the weights.
        project: The name of the dialect.
        distance: The class in `vq.quantizers` of the distance with which the codes were learned.
        pixels: The values of black and white that the networks were trained with.

    Raises:
        InteropError: If the distance is of another class, the networks take other pixel values, or a norm has another
            number of groups.
    """
    check_distance(tokenizer, project, distance)
    check_networks(tokenizer, project, pixels)


def check_networks(tokenizer: nn.Module, project: str, pixels: tuple[float, float] = PIXELS) -> None:
    """Refuses networks with other pixel values or norms, which their tensors do not show.

    Args:
        tokenizer: The tokenizer that is to get the weights.
        project: The name of the dialect.
        pixels: The values of black and white that the networks were trained with.

    Raises:
        InteropError: If the networks take other pixel values, or a norm has another number of groups.
    """
    if (found := getattr(tokenizer, "value_range", pixels)) != pixels:
        raise InteropError(
            f"{project} weights: expected a tokenizer with value_range {pixels}, got {found}; the networks were "
            "trained with the former"
        )
    for name, module in tokenizer.named_modules():
        if isinstance(module, nn.GroupNorm) and module.num_groups != GROUPS:
            raise InteropError(
                f"{project} weights: expected {GROUPS} groups in every norm, got {module.num_groups} in {name} of "
                f"{module.num_channels} channels; networks with fewer than 128 channels cannot be converted"
            )


def _is_mirrored(encoder: Side, decoder: Side) -> bool:
    blocks = set(encoder.num_blocks)
    return (
        len(blocks) == 1
        and set(decoder.num_blocks) == {blocks.pop() + 1}
        and encoder.has_attention == decoder.has_attention[::-1]
        and encoder.is_middle_attended == decoder.is_middle_attended
    )


def _shape(state: NamedTensors, project: str, name: str, axes: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != axes:
        found = f"the shape {tuple(state[name].shape)}" if name in state else "none"
        raise InteropError(
            f"{project} weights: expected a tensor {name} with {axes} axes, got {found}; check which project "
            "wrote the weights"
        )
    return tuple(state[name].shape)
