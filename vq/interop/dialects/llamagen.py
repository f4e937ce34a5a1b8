"""The tokenizers of LlamaGen (VQ-16, VQ-8): VQGAN with a codebook on the unit sphere."""

from vq.interop.dialect import Dialect, NamedTensors
from vq.interop.spelling import Spelling, to_ours, to_theirs
from vq.interop.vqgan import check_vqgan, describe_vqgan

SPELLING = Spelling(
    project="llamagen",
    encoder_block="encoder.conv_blocks.{level}.res.{index}",
    encoder_attention="encoder.conv_blocks.{level}.attn.{index}",
    downsample="encoder.conv_blocks.{level}.downsample.conv",
    encoder_middle=("encoder.mid.0", "encoder.mid.1", "encoder.mid.2"),
    decoder_block="decoder.conv_blocks.{level}.res.{index}",
    decoder_attention="decoder.conv_blocks.{level}.attn.{index}",
    upsample="decoder.conv_blocks.{level}.upsample.conv",
    decoder_middle=("decoder.mid.0", "decoder.mid.1", "decoder.mid.2"),
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
)


def from_llamagen(state: NamedTensors) -> NamedTensors:
    """Converts the names of the tensors of a LlamaGen tokenizer to those of an `ImageTokenizer`.

    The codebook is not normalized: `CosineDistance` projects it to the unit sphere when it is used, as LlamaGen does.
    The statistic `quantize.codebook_used` is dropped. If there are names that begin with `gen_vision_model.`, they
    belong to the tokenizer and all others are dropped.

    Args:
        state: The content of `model` in the checkpoint.

    Returns:
        A state dict for `ImageTokenizer` with `CNNEncoder`, `VectorQuantizer(LearnedCodebook,
        CosineDistance)` and `CNNDecoder`. The tensors are not copied.

    Raises:
        InteropError: If a name has no counterpart.
    """
    return DIALECT.read(state)


def to_llamagen(state: NamedTensors) -> NamedTensors:
    """Converts the state dict of an `ImageTokenizer` to LlamaGen's names, without the usage statistic.

    Args:
        state: The state dict of the tokenizer.

    Raises:
        InteropError: If a name has no counterpart, because the encoder, decoder or codebook is of another class.
    """
    return to_theirs(state, SPELLING)


DIALECT = Dialect(
    name="llamagen",
    recognises=lambda state: "encoder.conv_blocks.0.res.0.conv1.weight" in state,
    describe=lambda state: describe_vqgan(state, SPELLING, distance="CosineDistance"),
    translate=lambda state: to_ours(state, SPELLING),
    write=to_llamagen,
    check=lambda tokenizer: check_vqgan(tokenizer, "llamagen", "CosineDistance"),
    prefixes=("gen_vision_model.",),  # in the files of Janus
    ignored=r"quantize\.codebook_used",  # recent indices, for a usage statistic in training
)
"""The weights of LlamaGen's tokenizers."""
