"""The tokenizer of Janus as `transformers` stores it: LlamaGen's, under names that resemble taming's."""

from dataclasses import replace

from vq.interop.dialect import Dialect
from vq.interop.dialects.taming import SPELLING as TAMING
from vq.interop.spelling import to_ours, to_theirs
from vq.interop.vqgan import check_vqgan, describe_vqgan

SPELLING = replace(TAMING, project="janus", is_decoder_reversed=False)

DIALECT = Dialect(
    name="janus",
    # The first level of the decoder has the lowest resolution, so it is followed by a doubling; taming's is the last.
    recognises=lambda state: (
        {"encoder.down.0.block.0.conv1.weight", "decoder.up.0.upsample.conv.weight"} <= state.keys()
    ),
    describe=lambda state: describe_vqgan(state, SPELLING, distance="CosineDistance"),
    translate=lambda state: to_ours(state, SPELLING),
    write=lambda state: to_theirs(state, SPELLING),
    check=lambda tokenizer: check_vqgan(tokenizer, "janus", "CosineDistance"),
    prefixes=("model.vqmodel.",),  # in the files of whole models
)
"""The weights of Janus in the layout of `transformers`; Janus's own files have LlamaGen's names."""
