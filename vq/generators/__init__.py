"""Generators: networks that predict the indices of an image, given a class and some of its other indices."""

from vq.generators.base import Generator, GeneratorOutput, generator_output
from vq.generators.decoder import LLAMA_SIZES, DecoderStyle, DecoderTransformer, GPT2Style, LlamaStyle
from vq.generators.load import load_generator
from vq.generators.masked import MaskedGenerator
from vq.generators.pixelcnn import PixelCNNGenerator
from vq.generators.sampling import ConstantGuidance, CosineGuidance, Guidance, LinearGuidance, Sampler
from vq.generators.transformer import TransformerGenerator
from vq.generators.weights import convert_weights

__all__ = [
    "LLAMA_SIZES",
    "ConstantGuidance",
    "CosineGuidance",
    "DecoderStyle",
    "DecoderTransformer",
    "GPT2Style",
    "Generator",
    "GeneratorOutput",
    "Guidance",
    "LinearGuidance",
    "LlamaStyle",
    "MaskedGenerator",
    "PixelCNNGenerator",
    "Sampler",
    "TransformerGenerator",
    "convert_weights",
    "generator_output",
    "load_generator",
]
