"""VQGAN as published in taming-transformers; the VQ models of latent diffusion have the same names."""

from vq.interop.dialect import Dialect, NamedTensors
from vq.interop.spelling import Spelling, to_ours, to_theirs
from vq.interop.vqgan import check_vqgan, describe_vqgan

SPELLING = Spelling(
    project="taming",
    encoder_block="encoder.down.{level}.block.{index}",
    encoder_attention="encoder.down.{level}.attn.{index}",
    downsample="encoder.down.{level}.downsample.conv",
    encoder_middle=("encoder.mid.block_1", "encoder.mid.attn_1", "encoder.mid.block_2"),
    decoder_block="decoder.up.{level}.block.{index}",
    decoder_attention="decoder.up.{level}.attn.{index}",
    upsample="decoder.up.{level}.upsample.conv",
    decoder_middle=("decoder.mid.block_1", "decoder.mid.attn_1", "decoder.mid.block_2"),
    block={
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "shortcut": "nin_shortcut",
    },
    attention={"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"},
    ends={
        "encoder.stem": "encoder.conv_in",
        "encoder.norm": "encoder.norm_out",
        "encoder.head": "encoder.conv_out",
        "decoder.stem": "decoder.conv_in",
        "decoder.norm": "decoder.norm_out",
        "decoder.head": "decoder.conv_out",
        "pre_quant": "quant_conv",
        "post_quant": "post_quant_conv",
    },
    is_decoder_reversed=True,  # the decoder fills its list of levels from the end
)


def from_taming(state: NamedTensors) -> NamedTensors:
    """Converts the names of the tensors of a VQGAN to those of an `ImageTokenizer`.

    The networks of the loss (`loss.*`) are dropped. If there are names that begin with `first_stage_model.`, they
    belong to the tokenizer and all others are dropped.

    Args:
        state: The content of `state_dict` in the checkpoint.

    Returns:
        A state dict for `ImageTokenizer` with `CNNEncoder`, `VectorQuantizer(LearnedCodebook)` and
        `CNNDecoder`. The tensors are not copied.

    Raises:
        InteropError: If a name has no counterpart.
    """
    return DIALECT.read(state)


def to_taming(state: NamedTensors) -> NamedTensors:
    """Converts the state dict of an `ImageTokenizer` to the names of a VQGAN.

    Args:
        state: The state dict of the tokenizer.

    Raises:
        InteropError: If a name has no counterpart, because the encoder, decoder or codebook is of another class.
    """
    return to_theirs(state, SPELLING)


DIALECT = Dialect(
    name="taming",
    recognises=lambda state: (
        "encoder.down.0.block.0.conv1.weight" in state
        and "quantize.embedding.weight" in state
        and "encoder.mid.attn_1.qkv.weight" not in state  # VAR
        and "decoder.up.0.upsample.conv.weight" not in state  # Janus of transformers
        and "encoder.mid.0.conv1.weight" not in state  # MaskGIT
        and "encoder.time_conv.0.conv.conv.weight" not in state  # Emu3
        and "model_ema.decay" not in state  # IBQ
    ),
    describe=lambda state: describe_vqgan(state, SPELLING, distance="EuclideanDistance"),
    translate=lambda state: to_ours(state, SPELLING),
    write=to_taming,
    check=lambda tokenizer: check_vqgan(tokenizer, "taming", "EuclideanDistance"),
    prefixes=("first_stage_model.",),  # in the checkpoint of a transformer or a latent diffusion model
    ignored=r"loss\..*",
)
"""The weights of taming-transformers and of the VQ models of latent diffusion."""
