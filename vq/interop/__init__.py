"""Converts weights and tokens of other projects to those of this project, and back."""

from vq.interop.convert import DIALECTS, Conversion, convert, from_dialect, recognise
from vq.interop.dialect import Dialect, InteropError
from vq.interop.dialects.beitv2 import describe_beitv2, from_beitv2
from vq.interop.dialects.diffusers import from_diffusers, to_diffusers
from vq.interop.dialects.llamagen import from_llamagen, to_llamagen
from vq.interop.dialects.llamagen_gpt import from_llamagen_gpt, to_llamagen_gpt
from vq.interop.dialects.taming import from_taming, to_taming
from vq.interop.dialects.taming_gumbel import from_taming_gumbel, to_taming_gumbel
from vq.interop.vector_quantize_pytorch import from_vector_quantize_pytorch, to_vector_quantize_pytorch

__all__ = [
    "DIALECTS",
    "Conversion",
    "Dialect",
    "InteropError",
    "convert",
    "describe_beitv2",
    "from_beitv2",
    "from_dialect",
    "from_diffusers",
    "from_llamagen",
    "from_llamagen_gpt",
    "from_taming",
    "from_taming_gumbel",
    "from_vector_quantize_pytorch",
    "recognise",
    "to_diffusers",
    "to_llamagen",
    "to_llamagen_gpt",
    "to_taming",
    "to_taming_gumbel",
    "to_vector_quantize_pytorch",
]
