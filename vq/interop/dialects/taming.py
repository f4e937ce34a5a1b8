"""VQGAN in the names of its first project, taming-transformers; latent diffusion's VQ models share them."""

from collections.abc import Mapping

from torch import Tensor

from vq.interop.spelling import Spelling, to_ours, to_theirs

# Inside a transformer's or a latent diffusion model's checkpoint the tokenizer has a name of its own.
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
    is_decoder_reversed=True,  # its decoder fills the list from the end
)


def from_taming(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of a VQGAN the names of an `ImageTokenizer`; shapes are the same.

    The losses' networks (`loss.*`) are left out. If names begin with `first_stage_model.`, those are the
    tokenizer and the rest is left out.

    Args:
        state: The content of `state_dict` in the checkpoint.

    Returns:
        A state dict for `ImageTokenizer` with `CNNEncoder`, `VectorQuantizer(LearnedCodebook)` and
        `CNNDecoder`; the tensors are those of the input, not copies.

    Raises:
        InteropError: If a name has no counterpart.
    """
    nested = {n.removeprefix(_NESTED): t for n, t in state.items() if n.startswith(_NESTED)}
    kept = {n: t for n, t in (nested or state).items() if not n.startswith(_NOT_THE_TOKENIZER)}
    return to_ours(kept, SPELLING)


def to_taming(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_taming`: the state dict of an `ImageTokenizer` in a VQGAN's names.

    Raises:
        InteropError: If a name has no counterpart: another encoder, decoder or codebook.
    """
    return to_theirs(state, SPELLING)
