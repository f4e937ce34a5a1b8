"""A small instance of every network, layer, tokenizer and generator that a config can name."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from vq.generators import (
    DecoderTransformer,
    Generator,
    GPT2Style,
    LlamaStyle,
    MaskedGenerator,
    PixelCNNGenerator,
    TransformerGenerator,
)
from vq.layers import (
    FrequencyBandPatches,
    FrequencyBlockPatches,
    FrequencyPatches,
    LearnedPositions,
    LinearAttention,
    PixelPatches,
    RotaryPositions,
    SineCosinePositions,
    SoftmaxAttention,
    SpectrumPatches,
    Transformer,
)
from vq.networks import (
    CNNDecoder,
    CNNEncoder,
    EfficientNetTeacher,
    Emu3Decoder,
    Emu3Encoder,
    FrequencyDecoder,
    FrequencyEncoder,
    LatentTokensDecoder,
    LatentTokensEncoder,
    MaskGITDecoder,
    MaskGITEncoder,
    OpenMAGVIT2Decoder,
    OpenMAGVIT2Encoder,
    StridedCNNDecoder,
    StridedCNNEncoder,
    TeacherEncoder,
    TiTokCodeDecoder,
    TiTokDecoder,
    TiTokEncoder,
    ViTaminDecoder,
    ViTaminEncoder,
    ViTDecoder,
    ViTEncoder,
    VQVAEDecoder,
    VQVAEEncoder,
    WaveletCNNDecoder,
    WaveletCNNEncoder,
)
from vq.quantizers import EMACodebook, FiniteScalarQuantizer, NormalInit, Quantizer, VectorQuantizer
from vq.tokenizers import FeatureTokenizer, ImageTokenizer, Tokenizer, TokenizerWithDecoder, TwoLevelTokenizer

SIDE = 16
"""Height and width of the images that every tokenizer here takes."""


def _transformer(**changes: Any) -> Transformer:
    return Transformer(
        **({"width": 16, "depth": 1, "num_heads": 2, "positions": RotaryPositions()} | changes)
    )


def _tokenizer(encoder: nn.Module, decoder: nn.Module, quantizer: Quantizer | None = None) -> Tokenizer:
    return ImageTokenizer(
        encoder=encoder, quantizer=quantizer or FiniteScalarQuantizer(levels=[8, 6, 5]), decoder=decoder
    )


def strided(quantizer: Quantizer) -> Tokenizer:
    """Returns a tokenizer with the smallest networks around any quantizer of vectors."""
    net: dict[str, Any] = {"widths": (8, 8), "num_blocks": 1}
    return _tokenizer(StridedCNNEncoder(**net), StridedCNNDecoder(**net), quantizer)


def _vit(channels: int, patches: type = PixelPatches, **changes: Any) -> Tokenizer:
    # A factory, so that encoder and decoder have layers of their own.
    made = [{name: make() for name, make in changes.items()} for _ in range(2)]
    return _tokenizer(
        ViTEncoder(
            patches=patches(size=4, channels=channels),
            transformer=_transformer(**made[0]),
            num_extra_tokens=1,
        ),
        ViTDecoder(patches=patches(size=4, channels=channels), transformer=_transformer(**made[1])),
    )


def _latent_tokens(channels: int = 3) -> Tokenizer:
    parts: dict[str, Any] = {"num_latents": 5, "patches": PixelPatches(size=4, channels=channels)}
    return _tokenizer(
        LatentTokensEncoder(**parts, transformer=_transformer()),
        LatentTokensDecoder(**parts, transformer=_transformer(), image_size=SIDE),
    )


def _titok(channels: int = 3, *, two_stage: bool) -> Tokenizer:
    shared: dict[str, Any] = {"num_latents": 5, "image_size": SIDE}
    pixels = MaskGITDecoder(
        base_width=8, multipliers=(1, 1, 2), num_blocks=1, in_channels=6, image_channels=channels
    )
    encoder = TiTokEncoder(
        patches=PixelPatches(size=4, channels=channels),
        transformer=_transformer(positions=None),
        reshaped=two_stage,
        **shared,
    )
    transformer = _transformer(positions=None)
    if two_stage:
        return _tokenizer(
            encoder, TiTokCodeDecoder(decoder=pixels, transformer=transformer, num_codes=9, **shared)
        )
    patches = PixelPatches(size=4, channels=channels)
    return _tokenizer(encoder, TiTokDecoder(patches=patches, transformer=transformer, **shared))


def _two_levels(channels: int = 3) -> Tokenizer:
    net: dict[str, Any] = {"width": 8, "num_blocks": 1}
    return TwoLevelTokenizer(
        bottom_encoder=VQVAEEncoder(**net, num_halvings=2, image_channels=channels),
        top_encoder=VQVAEEncoder(**net, num_halvings=1, in_channels=8),
        top_quantizer=FiniteScalarQuantizer(levels=[5, 4, 3]),
        bottom_quantizer=VectorQuantizer(codebook=EMACodebook(size=9, dim=6, init=NormalInit())),
        top_decoder=VQVAEDecoder(**net, num_halvings=1, out_channels=8),
        decoder=VQVAEDecoder(**net, num_halvings=2, image_channels=channels),
    )


def features(
    *, has_decoder: bool = True, quantizer: Quantizer | None = None, channels: int = 3
) -> FeatureTokenizer:
    """Returns a small tokenizer without an image decoder, such as VQ-KD and, without any decoder, Cluster."""
    return FeatureTokenizer(
        encoder=ViTEncoder(
            patches=PixelPatches(size=4, channels=channels), transformer=_transformer(), out_channels=6
        ),
        quantizer=quantizer or VectorQuantizer(codebook=EMACodebook(size=9, dim=6, init=NormalInit())),
        decoder=ViTDecoder(
            patches=PixelPatches(size=1, channels=5), transformer=_transformer(), in_channels=6
        )
        if has_decoder
        else None,
    )


_VITAMIN: dict[str, Any] = {"widths": (8,), "depths": (2,), "width": 16, "depth": 1, "num_heads": 2}

VIEWS: dict[int, tuple[int, int, int] | None] = {1: (0, 0, 0), 3: None, 6: (5, 3, 1)}
"""The channels that an RGB network sees of images of each number of channels."""

TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "strided": lambda channels=3: _tokenizer(
        StridedCNNEncoder(widths=(8, 8), num_blocks=1, image_channels=channels),
        StridedCNNDecoder(widths=(8, 8), num_blocks=1, image_channels=channels),
    ),
    "cnn": lambda channels=3: _tokenizer(
        CNNEncoder(base_width=8, multipliers=(1, 2), num_blocks=1, out_channels=6, image_channels=channels),
        CNNDecoder(base_width=8, multipliers=(1, 2), num_blocks=1, in_channels=6, image_channels=channels),
    ),
    "wavelet-cnn": lambda channels=3: _tokenizer(
        WaveletCNNEncoder(
            **{
                "base_width": 8,
                "multipliers": (1, 2),
                "num_blocks": 1,
                "patch_size": 2,
                "downsample_factor": 4,
            },
            out_channels=6,
            image_channels=channels,
        ),
        WaveletCNNDecoder(
            **{
                "base_width": 8,
                "multipliers": (1, 2),
                "num_blocks": 1,
                "patch_size": 2,
                "downsample_factor": 4,
            },
            in_channels=6,
            image_channels=channels,
        ),
    ),
    "maskgit": lambda channels=3: _tokenizer(
        MaskGITEncoder(
            base_width=8, multipliers=(1, 2), num_blocks=1, out_channels=6, image_channels=channels
        ),
        MaskGITDecoder(
            base_width=8, multipliers=(1, 2), num_blocks=1, in_channels=6, image_channels=channels
        ),
    ),
    "maskgit-strided": lambda channels=3: _tokenizer(
        MaskGITEncoder(
            base_width=8,
            multipliers=(1, 2),
            num_blocks=1,
            out_channels=6,
            image_channels=channels,
            strided=True,
        ),
        MaskGITDecoder(
            base_width=8, multipliers=(1, 2), num_blocks=1, in_channels=6, image_channels=channels
        ),
    ),
    "emu3": lambda channels=3: _tokenizer(
        Emu3Encoder(base_width=8, multipliers=(1, 2), num_blocks=1, out_channels=6, image_channels=channels),
        Emu3Decoder(base_width=8, multipliers=(1, 2), num_blocks=1, in_channels=6, image_channels=channels),
    ),
    "open-magvit2": lambda channels=3: _tokenizer(
        OpenMAGVIT2Encoder(
            base_width=8, multipliers=(1, 2), num_blocks=1, out_channels=6, image_channels=channels
        ),
        OpenMAGVIT2Decoder(
            base_width=8, multipliers=(1, 2), num_blocks=1, in_channels=6, image_channels=channels
        ),
    ),
    "vq-vae": lambda channels=3: _tokenizer(
        VQVAEEncoder(width=8, num_blocks=1, num_halvings=2, image_channels=channels),
        VQVAEDecoder(width=8, num_blocks=1, num_halvings=2, image_channels=channels),
    ),
    "frequency": lambda channels=3: _tokenizer(
        FrequencyEncoder(encoder=StridedCNNEncoder(widths=(8, 8), image_channels=channels)),
        FrequencyDecoder(decoder=StridedCNNDecoder(widths=(8, 8), image_channels=channels)),
    ),
    "teacher": lambda channels=3: _tokenizer(
        TeacherEncoder(
            teacher=EfficientNetTeacher(downsample_factor=2),
            downsample_factor=4,
            image_channels=channels,
            rgb=VIEWS[channels],
        ),
        StridedCNNDecoder(widths=(8, 8), image_channels=channels),
    ),
    "vit-rotary": lambda channels=3: _vit(channels, attention=SoftmaxAttention),
    "vit-waves-linear": lambda channels=3: _vit(
        channels, positions=SineCosinePositions, attention=LinearAttention
    ),
    "vit-causal-linear": lambda channels=3: _vit(
        channels, attention=lambda: LinearAttention(causal=True, chunk_size=3)
    ),
    "vit-learned": lambda channels=3: _vit(
        channels, positions=lambda: LearnedPositions(width=16, grid=(2, 2))
    ),
    "vit-frequency": lambda channels=3: _vit(channels, FrequencyPatches),
    "vit-bands": lambda channels=3: _vit(channels, FrequencyBandPatches),
    "vit-blocks": lambda channels=3: _vit(channels, FrequencyBlockPatches),
    "vit-spectrum": lambda channels=3: _vit(channels, SpectrumPatches),
    "vitamin": lambda channels=3: _tokenizer(
        ViTaminEncoder(**_VITAMIN, out_channels=4, image_channels=channels),
        ViTaminDecoder(**_VITAMIN, in_channels=4, image_channels=channels),
    ),
    "latent-tokens": _latent_tokens,
    "titok": functools.partial(_titok, two_stage=False),
    "titok-two-stage": functools.partial(_titok, two_stage=True),
    "two-levels": _two_levels,
    "with-decoder": lambda channels=3: TokenizerWithDecoder(
        tokenizer=features(channels=channels),
        decoder=StridedCNNDecoder(widths=(8, 8), num_blocks=1, image_channels=channels),
    ),
}
"""The tokenizers that decode indices to images, as functions of the number of channels of the images."""


def _decoder(**changes: Any) -> DecoderTransformer:
    return DecoderTransformer(**({"width": 16, "depth": 1, "num_heads": 2} | changes))


_SHAPE: dict[str, Any] = {"vocabulary_size": 12, "num_classes": 3, "grid": (3, 4)}

GENERATORS: dict[str, Callable[[], Generator]] = {
    "llama": lambda: TransformerGenerator(transformer=_decoder(style=LlamaStyle(qk_norm=True)), **_SHAPE),
    "no-class-key": lambda: TransformerGenerator(
        transformer=_decoder(style=LlamaStyle(class_key=False)), **_SHAPE
    ),
    "zigzag": lambda: TransformerGenerator(transformer=_decoder(style=GPT2Style()), order="zigzag", **_SHAPE),
    "stacked": lambda: TransformerGenerator(
        transformer=_decoder(), num_indices=3, depth_transformer=_decoder(), **_SHAPE
    ),
    "masked": lambda: MaskedGenerator(transformer=_decoder(style=GPT2Style()), **_SHAPE),
    "pixelcnn": lambda: PixelCNNGenerator(width=8, depth=1, **_SHAPE),
}
