"""Image tokenizers, and the weight files they are loaded from."""

from vq.tokenizers.base import Tokenizer
from vq.tokenizers.hierarchy import TwoLevelTokenizer
from vq.tokenizers.image import ImageTokenizer
from vq.tokenizers.output import TokenizerOutput
from vq.tokenizers.pretrained import pretrained_tokenizer

__all__ = ["ImageTokenizer", "Tokenizer", "TokenizerOutput", "TwoLevelTokenizer", "pretrained_tokenizer"]
