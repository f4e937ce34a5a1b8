"""Codes whose channels are signs: what LFQ and BSQ have in common."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.parts.regularisers import Entropies, bit_entropies


def check_bits(place: str, bits: int, group_bits: int, temperature: float) -> None:
    """Validates bits, group_bits and temperature.

    Raises:
        ValueError: If one of them is out of range.
    """
    if not 1 <= bits <= 62:
        raise ValueError(f"{place}: expected 1 to 62 bits, got {bits}; an index is int64")
    if not 1 <= group_bits <= 24:
        raise ValueError(
            f"{place}: expected group_bits in [1, 24], got {group_bits}; the mean distribution has "
            f"2^group_bits entries"
        )
    if temperature <= 0:
        raise ValueError(f"{place}: expected a positive temperature, got {temperature}")


def sign_codes(z: Float[Tensor, "*lead bits"], magnitude: float) -> Float[Tensor, "*lead bits"]:
    """Replaces each channel by `magnitude` with its sign; 0 and NaN count as negative."""
    return ((z > 0).to(z.dtype) * 2 - 1) * magnitude


def sign_indices(z: Float[Tensor, "*lead bits"]) -> Int[Tensor, "*lead"]:
    """Packs the signs of each vector into one index: bit i is 1 if channel i is positive."""
    return pack_digits((z > 0).long(), _twos(z, z.shape[-1]))


def codes_of_indices(
    indices: Int[Tensor, "*lead"], bits: int, magnitude: float, dtype: torch.dtype
) -> Float[Tensor, "*lead bits"]:
    """Returns the codes of indices that `sign_indices` made."""
    return (unpack_digits(indices, _twos(indices, bits)).to(dtype) * 2 - 1) * magnitude


def sign_entropies(
    z: Float[Tensor, "*lead bits"],
    mask: Bool[Tensor, "*lead"] | None,
    *,
    magnitude: float,
    temperature: float,
    group_bits: int,
    across_ranks: bool,
) -> Entropies:
    r"""Computes the entropies of $p = softmax_k(-|z - c_k|^2 / \tau)$ over all codes $c_k$ of one magnitude.

    p factorises into the bits, each 1 with the probability sigmoid(4 magnitude z / tau). So the sample entropy is
    exact and cheap, and the codebook entropy needs no tensor of vectors times codes (see `bit_entropies`).

    Args:
        z: Vectors in the space of the codes.
        mask: True for the vectors that count; None if all do.
        magnitude: Absolute value of each channel of a code.
        temperature: Temperature tau of the softmax, in units of squared distance.
        group_bits: Maximum number of bits whose joint distribution is computed.
        across_ranks: Whether the entropies are those of the vectors of all ranks.
    """
    return bit_entropies(
        z.reshape(-1, z.shape[-1]) * (4 * magnitude / temperature),
        None if mask is None else mask.reshape(-1),
        group_bits=group_bits,
        across_ranks=across_ranks,
    )


def _twos(like: Int[Tensor, "..."] | Float[Tensor, "..."], bits: int) -> Int[Tensor, "{bits}"]:
    return constant(int64s, *[2] * bits, device=like.device)
