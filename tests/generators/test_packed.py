"""Packed weights change the time of a product, and nothing else."""

import pytest
import torch
from torch import nn

from vq.generators import DecoderTransformer, GPT2Style, TransformerGenerator
from vq.generators.decoder import KeyValueCache
from vq.generators.packed import packed_weights


def network() -> DecoderTransformer:
    torch.manual_seed(0)
    return DecoderTransformer(width=32, depth=2, num_heads=2, style=GPT2Style()).eval()


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 8, 40])
def test_products_are_equal_but_for_rounding(rows: int) -> None:
    model, x = network(), torch.randn(rows, 3, 32)
    expected = model(x)
    with packed_weights(model, rows=8):
        assert all("forward" in vars(layer) for layer in model.modules() if isinstance(layer, nn.Linear))
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
    assert torch.equal(model(x), expected)


def test_layers_are_as_before_after_an_error_and_where_it_does_not_apply() -> None:
    model = network()
    with packed_weights(model, rows=8):  # gradients are on
        assert not any("forward" in vars(layer) for layer in model.modules())
    with pytest.raises(RuntimeError, match="inside"), torch.no_grad(), packed_weights(model, rows=8):
        raise RuntimeError("inside")
    assert not any("forward" in vars(layer) for layer in model.modules())
    with torch.no_grad(), packed_weights(model.double(), rows=8):
        assert not any("forward" in vars(layer) for layer in model.modules())


def test_a_long_sequence_is_sampled_as_its_logits_say() -> None:
    """More than 32 places, where sampling packs: greedy indices are those of the teacher-forced logits."""
    torch.manual_seed(0)
    generator = TransformerGenerator(
        transformer=DecoderTransformer(width=32, depth=2, num_heads=4),
        vocabulary_size=12,
        num_classes=3,
        grid=(6, 7),
    ).eval()
    label = torch.tensor([0, 1, 2])
    drawn = generator.generate(label, seeds=torch.zeros(3).long(), temperature=0.0)
    with torch.no_grad():
        assert torch.equal(generator(drawn, label).logits.argmax(-1)[..., 0], drawn.flatten(1))


def test_bfloat16_weights_keep_their_logits_with_a_cache() -> None:
    torch.manual_seed(0)
    model = network().bfloat16()
    x = torch.randn(2, 5, 32).bfloat16()
    cache = KeyValueCache(model, rows=2, length=5)
    with torch.no_grad():
        whole = model(x)
        parts = torch.cat([model(x[:, i : i + 1], cache=cache) for i in range(5)], 1)
    assert parts.dtype == torch.bfloat16
    torch.testing.assert_close(parts.float(), whole.float(), atol=0.1, rtol=0)
