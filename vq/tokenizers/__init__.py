"""Image tokenizers, and the files that hold them."""

from vq.tokenizers.image import ImageTokenizer
from vq.tokenizers.output import TokenizerOutput

__all__ = ["ImageTokenizer", "TokenizerOutput"]
