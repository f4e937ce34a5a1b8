"""Codes on the unit sphere that are as far apart as possible: the shortest vectors of the densest lattices."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.quantizers.parts.initialization import Initialization
from vq.registry import QUANTIZER_PARTS

SIZES = {4: 24, 8: 240, 24: 196_560}
"""Number of shortest vectors of the lattices D4, E8 and Leech, by dimension."""

GOLAY_POLYNOMIAL = (0, 2, 4, 5, 6, 10, 11)
"""Exponents of a generator polynomial of the binary Golay code of length 23."""


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True)
class LatticeInit(Initialization):
    """Takes the shortest vectors of the densest lattice as codes, scaled to length 1; nothing is drawn.

    There are 24 in 4 dimensions (D4), 240 in 8 (E8) and 196,560 in 24 (the Leech lattice). The smallest distance of
    two codes is 1, and no more points fit on the sphere at this distance. The negative of each code is a code too.

    Spherical Leech quantization (L24-SQ) is a `FrozenCodebook` with these codes, `CosineDistance` and no commitment
    loss. There is no loss at all, because even codes need no entropy term. Its time is that of a search among
    196,560 codes.

    Source: Zhao et al. 2025 (spherical Leech quantization), https://arxiv.org/abs/2512.14697, section 3.4; the vectors
        are those of Conway and Sloane, Sphere Packings, Lattices and Groups, chapters 4 (D4, E8) and 11 (Leech).
    Differs from the source: the order of the codes, which the paper leaves open.
    """

    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Computes the vectors.

        Raises:
            ValueError: If there is no such lattice in `dim` dimensions, or `size` is not the number of its vectors.
        """
        if SIZES.get(dim) != size:
            known = ", ".join(f"{count} of length {length}" for length, count in SIZES.items())
            raise ValueError(
                f"LatticeInit: expected the size and dim of a lattice ({known}), got {size} of length {dim}"
            )
        make = {4: _d4, 8: _e8, 24: _leech}[dim]
        device = torch.get_default_device()
        with torch.device("cpu"):  # on the meta device no vectors could be selected
            vectors = make().to(torch.get_default_dtype())
            unit = vectors / vectors[0].norm()
        return unit.to(device)


def _d4() -> Int[Tensor, "24 4"]:
    return _pairs(4, 1)


def _e8() -> Int[Tensor, "240 8"]:
    """Returns the vectors with entries +-2 in two places, and those of +-1 with an even number of minus signs."""
    return torch.cat([_pairs(8, 2), _even_signs()])


def _leech() -> Int[Tensor, "196560 24"]:
    """Returns the vectors of the shapes (4, 4, 0^22), (2^8, 0^16) and (3, 1^23), in this order.

    The places of the second shape are the words of weight 8 of the Golay code, with an even number of minus signs.
    In the third, (-3, 1^23) with the -3 in any place, the signs are changed in the places of any word.
    """
    words = _golay_words()
    octads = words[words.sum(1) == 8]
    places = octads.nonzero()[:, 1].view(-1, 1, 8).expand(-1, 128, 8)
    twos = torch.zeros(len(octads), 128, 24, dtype=torch.int64)
    twos.scatter_(2, places, 2 * _even_signs().expand(len(octads), 128, 8))
    threes = (1 - 2 * words)[:, None] * (1 - 4 * torch.eye(24, dtype=torch.int64))
    return torch.cat([_pairs(24, 4), twos.view(-1, 24), threes.view(-1, 24)])


def _pairs(dim: int, value: int) -> Int[Tensor, "n dim"]:
    """Returns all vectors with the entries +-value in two places and 0 elsewhere."""
    places = torch.combinations(torch.arange(dim), 2)
    signs = value * torch.tensor(list(itertools.product((1, -1), repeat=2)))
    vectors = torch.zeros(len(places), 4, dim, dtype=torch.int64)
    vectors.scatter_(2, places[:, None].expand(-1, 4, 2), signs.expand(len(places), 4, 2))
    return vectors.view(-1, dim)


def _even_signs() -> Int[Tensor, "128 8"]:
    """Returns the vectors of eight signs of which an even number is negative."""
    signs = torch.tensor(list(itertools.product((1, -1), repeat=8)))
    return signs[signs.prod(1) == 1]


def _golay_words() -> Int[Tensor, "4096 24"]:
    """Returns the words of the extended binary Golay code as rows of 0 and 1."""
    generator = torch.zeros(12, 23, dtype=torch.int64)
    for shift in range(12):
        generator[shift, [shift + exponent for exponent in GOLAY_POLYNOMIAL]] = 1
    messages = torch.tensor(list(itertools.product((0, 1), repeat=12)))
    words = messages @ generator % 2
    return torch.cat([words, words.sum(1, keepdim=True) % 2], dim=1)
