"""Image tokenizers, and the weight files they are loaded from."""

from vq.tokenizers.base import Tokenizer
from vq.tokenizers.feature import FeatureTokenizer
from vq.tokenizers.hierarchy import TwoLevelTokenizer
from vq.tokenizers.image import ImageTokenizer
from vq.tokenizers.output import TokenizerOutput
from vq.tokenizers.pretrained import pretrained_tokenizer
from vq.tokenizers.with_decoder import TokenizerWithDecoder

__all__ = [
    "FeatureTokenizer",
    "ImageTokenizer",
    "Tokenizer",
    "TokenizerOutput",
    "TokenizerWithDecoder",
    "TwoLevelTokenizer",
    "pretrained_tokenizer",
]
