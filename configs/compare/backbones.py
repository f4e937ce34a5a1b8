"""Networks: convolutions, transformers, linear attention, frequencies, one-dimensional tokens, on 32 px emoji, f4.

All but the last four have 64 tokens of 8 bits for an image. `frequency_patches`, `_bands` and `_blocks` are the
versions v1 to v3 of FreqPatchEmbed, `frequency_features` and `spectrum` v1 and v2 of the frequency transformer of the
development log of vector_quants. The networks do not have equally many parameters; the table says how many.

Command:  python -m vq.compare configs/compare/backbones.py
Expected: cnn 20.6 dB, vqvae -0.5 +- 0.4, vit -3.4 +- 0.2, linear_attention -3.8 +- 0.9, latent_tokens_32 -6.9 +- 0.9;
          all rows in experiments/backbones (measured here, 2026-11-27, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.layers import (
    FrequencyBandPatches,
    FrequencyBlockPatches,
    FrequencyPatches,
    LinearAttention,
    PixelPatches,
    RotaryPositions,
    SpectrumPatches,
    Transformer,
)
from vq.networks import (
    FrequencyDecoder,
    FrequencyEncoder,
    LatentTokensDecoder,
    LatentTokensEncoder,
    ViTDecoder,
    ViTEncoder,
    VQVAEDecoder,
    VQVAEEncoder,
)
from vq.quantizers import (
    KMeansInit,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    ReplaceDeadCodes,
    VectorQuantizer,
)
from vq.tokenizers import ImageTokenizer, TwoLevelTokenizer


def vq(dim=16):
    """The quantizer of the base page."""
    start, revival = dict(type=KMeansInit), dict(type=ReplaceDeadCodes)
    codebook = dict(type=LearnedCodebook, size=256, dim=dim, init=start, revival=revival)
    return dict(type=VectorQuantizer, codebook=codebook)


def image_tokenizer(encoder, decoder):
    """A contestant with other networks."""
    return dict(tokenizer=dict(type=ImageTokenizer, encoder=encoder, quantizer=vq(), decoder=decoder))


def transformer(**attention):
    """Three blocks, 64 wide."""
    shape = dict(width=64, depth=3, num_heads=4)
    return dict(type=Transformer, positions=dict(type=RotaryPositions), **shape, **attention)


def vit(patches, **attention):
    """The encoder and the decoder over patches of 4 pixels."""
    network = dict(patches=dict(type=patches, size=4), transformer=transformer(**attention))
    encoder = dict(type=ViTEncoder, **network, out_channels=32)
    return encoder, dict(type=ViTDecoder, **network, in_channels=32)


latents = dict(patches=dict(type=PixelPatches, size=4), transformer=transformer(), num_latents=32)
encoder, decoder = vit(PixelPatches)
strided = dict(width=64, num_blocks=1)
contestants = dict(
    cnn=dict(),
    vit=image_tokenizer(*vit(PixelPatches)),
    linear_attention=image_tokenizer(*vit(PixelPatches, attention=dict(type=LinearAttention))),
    frequency_patches=image_tokenizer(*vit(FrequencyPatches)),
    frequency_bands=image_tokenizer(*vit(FrequencyBandPatches)),
    frequency_blocks=image_tokenizer(*vit(FrequencyBlockPatches)),
    spectrum=image_tokenizer(*vit(SpectrumPatches)),
    frequency_features=image_tokenizer(
        dict(type=FrequencyEncoder, encoder=encoder), dict(type=FrequencyDecoder, decoder=decoder)
    ),
    vqvae=image_tokenizer(
        dict(type=VQVAEEncoder, num_halvings=2, **strided), dict(type=VQVAEDecoder, num_halvings=2, **strided)
    ),
    latent_tokens_32=image_tokenizer(
        dict(type=LatentTokensEncoder, **latents), dict(type=LatentTokensDecoder, **latents, image_size=32)
    ),
    multi_scale_1_2_4_8=dict(
        tokenizer=dict(quantizer=dict(type=MultiScaleResidualQuantizer, quantizer=vq(), scales=(1, 2, 4, 8)))
    ),
    vqvae2=dict(
        tokenizer=dict(
            type=TwoLevelTokenizer,
            bottom_encoder=dict(type=VQVAEEncoder, num_halvings=2, **strided),
            top_encoder=dict(type=VQVAEEncoder, num_halvings=1, in_channels=64, **strided),
            top_quantizer=vq(),
            bottom_quantizer=vq(),
            top_decoder=dict(type=VQVAEDecoder, num_halvings=1, out_channels=64, **strided),
            decoder=dict(type=VQVAEDecoder, num_halvings=2, **strided),
        )
    ),
)
comparison = dict(
    type=Comparison,
    question="Which network makes and reads tokens best at this size?",
    baseline="cnn",
    seeds=(0, 1, 2),
    cpu_hours=2.0,
)
