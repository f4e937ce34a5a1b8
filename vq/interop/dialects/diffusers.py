"""The `VQModel` of diffusers: VQGAN with linear layers in place of the 1x1 convolutions of its attention."""

import re

from vq.interop.spelling import NamedTensors, Spelling, to_ours, to_theirs

_PROJECTION = re.compile(r"(.*attentions\.\d+)\.(to_q|to_k|to_v|to_out\.0)\.weight")
_OUR_PROJECTION = re.compile(r".*\.(query|key|value|out)\.weight")
# The names in files that are older than the unified attention class of diffusers.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")

SPELLING = Spelling(
    project="diffusers",
    encoder_block="encoder.down_blocks.{level}.resnets.{index}",
    encoder_attention="encoder.down_blocks.{level}.attentions.{index}",
    downsample="encoder.down_blocks.{level}.downsamplers.0.conv",
    encoder_middle=(
        "encoder.mid_block.resnets.0",
        "encoder.mid_block.attentions.0",
        "encoder.mid_block.resnets.1",
    ),
    decoder_block="decoder.up_blocks.{level}.resnets.{index}",
    decoder_attention="decoder.up_blocks.{level}.attentions.{index}",
    upsample="decoder.up_blocks.{level}.upsamplers.0.conv",
    decoder_middle=(
        "decoder.mid_block.resnets.0",
        "decoder.mid_block.attentions.0",
        "decoder.mid_block.resnets.1",
    ),
    block={
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "shortcut": "conv_shortcut",
    },
    attention={"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"},
    ends={
        "encoder.stem": "encoder.conv_in",
        "encoder.norm": "encoder.conv_norm_out",
        "encoder.head": "encoder.conv_out",
        "decoder.stem": "decoder.conv_in",
        "decoder.norm": "decoder.conv_norm_out",
        "decoder.head": "decoder.conv_out",
        "pre_quant": "quant_conv",
        "post_quant": "post_quant_conv",
    },
)


def from_diffusers(state: NamedTensors) -> NamedTensors:
    """Converts the names and shapes of the tensors of a `VQModel` to those of an `ImageTokenizer`.

    The (c, c) matrices of the attention become (c, c, 1, 1) convolutions. Both the current and the old names of the
    attention layers (`to_q` and `query`) are accepted.

    Args:
        state: The content of `diffusion_pytorch_model.safetensors`.

    Returns:
        A state dict for `ImageTokenizer` with `CNNEncoder`, `VectorQuantizer(LearnedCodebook)` and
        `CNNDecoder`. The tensors share the memory of the input.

    Raises:
        InteropError: If a name has no counterpart.
    """
    renamed = {
        f"{m[1]}.{_OLD[m[2]]}.{m[3]}" if (m := _OLD_NAME.fullmatch(n)) else n: t for n, t in state.items()
    }
    shaped = {
        n: t[:, :, None, None] if _PROJECTION.fullmatch(n) and t.ndim == 2 else t for n, t in renamed.items()
    }
    return to_ours(shaped, SPELLING)


def to_diffusers(state: NamedTensors) -> NamedTensors:
    """Converts the state dict of an `ImageTokenizer` to that of a `VQModel`, with the current names of diffusers.

    Args:
        state: The state dict of the tokenizer.

    Raises:
        InteropError: If a name has no counterpart, because the encoder, decoder or codebook is of another class.
    """
    return to_theirs(
        {n: t[:, :, 0, 0] if _OUR_PROJECTION.fullmatch(n) else t for n, t in state.items()}, SPELLING
    )
