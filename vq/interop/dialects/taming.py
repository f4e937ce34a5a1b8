"""VQGAN as published in taming-transformers; the VQ models of latent diffusion have the same names."""

from vq.interop.spelling import NamedTensors, Spelling, to_ours, to_theirs

# The prefix of the tokenizer in the checkpoint of a transformer or a latent diffusion model.
_NESTED = "first_stage_model."
_NOT_THE_TOKENIZER = ("loss.",)

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
    nested = {n.removeprefix(_NESTED): t for n, t in state.items() if n.startswith(_NESTED)}
    kept = {n: t for n, t in (nested or state).items() if not n.startswith(_NOT_THE_TOKENIZER)}
    return to_ours(kept, SPELLING)


def to_taming(state: NamedTensors) -> NamedTensors:
    """Converts the state dict of an `ImageTokenizer` to the names of a VQGAN.

    Args:
        state: The state dict of the tokenizer.

    Raises:
        InteropError: If a name has no counterpart, because the encoder, decoder or codebook is of another class.
    """
    return to_theirs(state, SPELLING)
