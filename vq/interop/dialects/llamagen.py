"""The tokenizers of LlamaGen (VQ-16, VQ-8): VQGAN with a codebook on the unit sphere, and other names."""

from collections.abc import Mapping

from torch import Tensor

from vq.interop.spelling import Spelling, to_ours, to_theirs

# A ring of the last indices, for a usage statistic in training.
_NOT_THE_TOKENIZER = ("quantize.codebook_used",)

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


def from_llamagen(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of LlamaGen's tokenizer the names of an `ImageTokenizer`; shapes are the same.

    The codebook stays as the file has it: `CosineDistance` puts it on the unit sphere where it is used, as
    LlamaGen does. The statistic `quantize.codebook_used` is left out.

    Args:
        state: The content of `model` in the checkpoint.

    Returns:
        A state dict for `ImageTokenizer` with `CNNEncoder`, `VectorQuantizer(LearnedCodebook,
        CosineDistance)` and `CNNDecoder`; the tensors are those of the input, not copies.

    Raises:
        InteropError: If a name has no counterpart.
    """
    kept = {n: t for n, t in state.items() if n not in _NOT_THE_TOKENIZER}
    return to_ours(kept, SPELLING)


def to_llamagen(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_llamagen`, but for the statistic, which LlamaGen can start anew.

    Raises:
        InteropError: If a name has no counterpart: another encoder, decoder or codebook.
    """
    return to_theirs(state, SPELLING)
