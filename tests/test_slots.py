"""Which kind of part stands at a place, and how deep a place may be."""

import pytest

from vq import slots
from vq.errors import ConfigError


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("tokenizer", slots.TOKENIZER),
        ("tokenizer.quantizer", slots.QUANTIZER),
        ("tokenizer.quantizers[3].codebook", slots.CODEBOOK),
        ("evaluator.metrics[0]", slots.METRIC),
        ("train_step.losses.lpips", slots.LOSS),
        ("train_step.weights.lpips", slots.QUANTIZER_PART),
        ("somewhere", None),
        ("train_step.losses.lpips.inner", None),
    ],
)
def test_the_last_key_decides_the_kind_and_named_collections_their_entries(
    path: str, kind: slots.Kind | None
) -> None:
    assert slots.kind_of(path) is kind


def test_a_place_may_be_64_keys_and_indices_deep() -> None:
    slots.check_depth("a" + ".b" * 32 + "[0]" * 32)
    with pytest.raises(ConfigError, match="nested more than 64 deep"):
        slots.check_depth("a" + ".b" * 32 + "[0]" * 33)
