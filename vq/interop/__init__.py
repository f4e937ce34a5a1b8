"""Converts weights and tokens of other projects to those of this project, and back."""

from vq.interop.convert import DIALECTS, Dialect, InteropError, from_dialect
from vq.interop.dialects.beitv2 import describe_beitv2, from_beitv2
from vq.interop.dialects.diffusers import from_diffusers, to_diffusers
from vq.interop.dialects.llamagen import from_llamagen, to_llamagen
from vq.interop.dialects.taming import from_taming, to_taming

__all__ = [
    "DIALECTS",
    "Dialect",
    "InteropError",
    "describe_beitv2",
    "from_beitv2",
    "from_dialect",
    "from_diffusers",
    "from_llamagen",
    "from_taming",
    "to_diffusers",
    "to_llamagen",
    "to_taming",
]
