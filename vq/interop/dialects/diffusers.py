"""The `VQModel` of diffusers: VQGAN with linear layers in place of the 1x1 convolutions of its attention."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.spelling import Spelling, plan_of, to_ours, to_theirs
from vq.interop.vqgan import GROUPS, check_vqgan, describe_vqgan
from vq.text import shown

_PROJECTION = re.compile(r"(.*attentions\.\d+)\.(to_q|to_k|to_v|to_out\.0)\.weight")
_OUR_PROJECTION = re.compile(r".*\.(query|key|value|out)\.weight")
# The names in files that are older than the unified attention class of diffusers.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")

_FIXED: Mapping[str, Any] = {
    "act_fn": "silu",
    "norm_num_groups": GROUPS,
    "norm_type": "group",
}
"""The fields of diffusers' config that are equal in all models that can be converted, and that no tensor shows."""

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
    return DIALECT.read(state)


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


def vq_model_config(state: NamedTensors) -> dict[str, Any]:
    """Returns the `config.json` of the `VQModel` that has some tensors.

    The fields that do not change what the module computes are left out, so that diffusers takes their defaults:
    `sample_size`, `scaling_factor`, `lookup_from_codebook` and `force_upcast`.

    Args:
        state: The tensors of the module, by the current names of diffusers.
    """
    encoder, decoder = plan_of(state, SPELLING)
    widths = [
        len(state[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"])
        for level in range(len(encoder.num_blocks))
    ]
    codes, dim = state[SPELLING.codebook].shape
    return {
        "_class_name": "VQModel",
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": len(state["decoder.conv_out.weight"]),
        "down_block_types": [
            "AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D" for attends in encoder.has_attention
        ],
        "up_block_types": [
            "AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D" for attends in decoder.has_attention
        ],
        "block_out_channels": widths,
        "layers_per_block": encoder.num_blocks[0],
        "latent_channels": len(state["encoder.conv_out.weight"]),
        "num_vq_embeddings": codes,
        "vq_embed_dim": dim,
        "mid_block_add_attention": encoder.is_middle_attended,
        **_FIXED,
    }


def check_vq_model(config: Mapping[str, Any], place: Path) -> None:
    """Refuses a `config.json` of diffusers whose model would compute something else than the tokenizer here.

    Args:
        config: Its content.
        place: The file, for error messages.

    Raises:
        InteropError: If it is not that of a `VQModel`, or has other norms or another activation.
    """
    expected = {"_class_name": "VQModel", **_FIXED}
    for field, value in expected.items():
        if (found := config.get(field, value)) != value:
            raise InteropError(
                f"{place}: expected {field} to be {value!r}, got {shown(found)}; the weights would compute something "
                "else here"
            )


def _with_current_names(state: NamedTensors) -> NamedTensors:
    return {
        f"{m[1]}.{_OLD[m[2]]}.{m[3]}" if (m := _OLD_NAME.fullmatch(n)) else n: t for n, t in state.items()
    }


def _translate(state: NamedTensors) -> NamedTensors:
    renamed = _with_current_names(state)
    shaped = {
        n: t[:, :, None, None] if _PROJECTION.fullmatch(n) and t.ndim == 2 else t for n, t in renamed.items()
    }
    return to_ours(shaped, SPELLING)


DIALECT = Dialect(
    name="diffusers",
    recognises=lambda state: (
        "encoder.down_blocks.0.resnets.0.conv1.weight" in state and "quantize.embedding.weight" in state
    ),
    describe=lambda state: describe_vqgan(_with_current_names(state), SPELLING, distance="EuclideanDistance"),
    translate=_translate,
    write=to_diffusers,
    check=lambda tokenizer: check_vqgan(tokenizer, "diffusers", "EuclideanDistance"),
)
"""The weights of the `VQModel` of diffusers."""
