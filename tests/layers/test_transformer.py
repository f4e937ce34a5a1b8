"""Attention, positions and blocks against their equations and invariances."""

import math

import numpy as np
import pytest
import torch

from vq.layers import (
    LearnedPositions,
    LinearAttention,
    RotaryPositions,
    SineCosinePositions,
    SoftmaxAttention,
    Transformer,
)
from vq.layers.transformer import grid_places


def heads(count: int = 3, n: int = 21, dim: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, count, n, dim, generator=generator) for _ in range(3)]


def awake(network: torch.nn.Module) -> None:
    """Sharpens the attention of a new network, which is almost uniform after initialisation."""
    for name, parameter in network.named_parameters():
        if name.endswith(("query.weight", "key.weight", "value.weight", "out.weight")):
            parameter.data.mul_(20)


class TestAttention:
    @pytest.mark.parametrize("causal", [False, True])
    def test_softmax_equals_the_equation(self, causal):
        q, k, v = heads()
        scores = (q @ k.mT).double().numpy() / math.sqrt(8)
        if causal:
            scores = np.where(np.tri(21, dtype=bool), scores, -np.inf)
        weights = np.exp(scores)
        wanted = weights / weights.sum(-1, keepdims=True) @ v.numpy()
        found = SoftmaxAttention(causal=causal)(q, k, v)
        np.testing.assert_allclose(found, wanted, atol=1e-5)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("chunk_size", [1, 4, 7, 64])
    def test_linear_equals_the_quadratic_form(self, causal, chunk_size):
        attention = LinearAttention(causal=causal, chunk_size=chunk_size)
        q, k, v = heads()
        weights = (attention.features(q) @ attention.features(k).mT).double().numpy()
        mixed = (np.tril(weights) if causal else weights) @ v.numpy()
        centred = mixed - mixed.mean(-1, keepdims=True)
        wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        found = attention(attention.features(q), attention.features(k), v)
        np.testing.assert_allclose(found, wanted, atol=1e-4)

    @pytest.mark.parametrize("kind", [SoftmaxAttention, LinearAttention])
    def test_causal_does_not_see_what_follows(self, kind):
        q, k, v = heads()
        attention = kind(causal=True)
        before = attention(q, k, v)
        k[:, :, 10:], v[:, :, 10:] = 5, -5
        after = attention(q, k, v)
        torch.testing.assert_close(after[:, :, :10], before[:, :, :10])
        assert not torch.allclose(after[:, :, 10:], before[:, :, 10:])

    def test_linear_computes_in_float32_inside_autocast(self):
        q, k, v = heads()
        with torch.autocast("cpu", torch.bfloat16):
            found = LinearAttention()(q, k, v)
        torch.testing.assert_close(found, LinearAttention()(q, k, v), rtol=0, atol=0)

    def test_chunk_size(self):
        with pytest.raises(ValueError, match="LinearAttention: expected a chunk_size of at least 1, got 0"):
            LinearAttention(chunk_size=0)


class TestPositions:
    def test_sines_and_cosines_of_row_and_column(self):
        places = grid_places((3, 5))
        found = SineCosinePositions().add(torch.zeros(1, 15, 12), places, (3, 5))[0].reshape(3, 5, 12).numpy()
        step = 10000.0 ** (-np.arange(3) / 3)
        for row in range(3):
            for column in range(5):
                angle = [np.array(place * step) for place in (row, column)]
                wanted = np.concatenate([f(a) for a in angle for f in (np.sin, np.cos)])
                np.testing.assert_allclose(found[row, column], wanted, atol=1e-5)

    def test_rotary_products_depend_on_differences_only(self):
        q, k, _ = heads(n=2)
        rotary = RotaryPositions()
        products = []
        for shift in ([0, 0], [5, 2], [0, 9]):
            places = torch.tensor([[1, 2], [3, 0]]) + torch.tensor(shift)
            products.append(rotary.rotate(q, places) @ rotary.rotate(k, places).mT)
        torch.testing.assert_close(products[1], products[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(products[2], products[0], atol=1e-4, rtol=1e-4)
        rotated = rotary.rotate(q, torch.tensor([[1, 2], [3, 0]]))
        torch.testing.assert_close(rotated.norm(dim=-1), q.norm(dim=-1))
        assert not torch.allclose(rotary.rotate(q, torch.tensor([[1, 2], [3, 1]])), rotated)

    def test_learned_vectors_are_added_at_their_places_and_interpolated(self):
        positions = LearnedPositions(width=4, grid=(2, 3))
        places = grid_places((2, 3)).flip(0)
        found = positions.add(torch.zeros(1, 6, 4), places, (2, 3))[0]
        torch.testing.assert_close(found.flip(0), positions.vectors.flatten(1).T)
        stretched = positions.add(torch.zeros(1, 24, 4), grid_places((4, 6)), (4, 6))[0]
        wanted = torch.nn.functional.interpolate(positions.vectors[None], size=(4, 6), mode="bicubic")[0]
        torch.testing.assert_close(stretched, wanted.flatten(1).T)

    def test_the_offset_changes_the_scale_of_the_interpolation(self):
        plain, shifted = (LearnedPositions(width=1, grid=(2, 2), offset=offset) for offset in (0.0, 0.4))
        shifted.load_state_dict(plain.state_dict())
        places, zeros = grid_places((3, 3)), torch.zeros(1, 9, 1)
        found = shifted.add(zeros, places, (3, 3)).view(3, 3)
        wanted = torch.nn.functional.interpolate(
            plain.vectors[None], scale_factor=(3.4 / 2, 3.4 / 2), mode="bicubic", recompute_scale_factor=False
        )
        torch.testing.assert_close(found, wanted[0, 0])
        assert not torch.allclose(found, plain.add(zeros, places, (3, 3)).view(3, 3))
        torch.testing.assert_close(
            shifted.add(zeros[:, :4], grid_places((2, 2)), (2, 2)), shifted.vectors.view(1, 4, 1)
        )

    def test_errors(self):
        with pytest.raises(ValueError, match="a width that is a multiple of 4, got 6"):
            SineCosinePositions().add(torch.zeros(1, 1, 6), grid_places((1, 1)), (1, 1))
        with pytest.raises(ValueError, match="heads of a multiple of 4 channels, got 6"):
            RotaryPositions().rotate(torch.zeros(1, 1, 1, 6), grid_places((1, 1)))
        with pytest.raises(ValueError, match="RotaryPositions: expected a base above 1, got 1"):
            RotaryPositions(base=1.0)
        with pytest.raises(ValueError, match="LearnedPositions: expected a width of at least 1 and a grid"):
            LearnedPositions(width=4, grid=(2,))
        with pytest.raises(ValueError, match=r"LearnedPositions: expected an offset in \[0, 1\), got 1.0"):
            LearnedPositions(width=4, grid=(2, 2), offset=1.0)


class TestTransformer:
    @pytest.mark.parametrize("attention", [SoftmaxAttention(), LinearAttention()])
    def test_without_positions_the_order_does_not_matter(self, attention):
        torch.manual_seed(0)
        transformer = Transformer(width=16, depth=2, num_heads=2, attention=attention)
        tokens, order = torch.randn(2, 6, 16), torch.tensor([3, 0, 5, 1, 4, 2])
        places = grid_places((2, 3))
        found = transformer(tokens, places=places, grid=(2, 3))
        shuffled = transformer(tokens[:, order], places=places, grid=(2, 3))
        torch.testing.assert_close(shuffled, found[:, order], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(
        "positions", [RotaryPositions(), SineCosinePositions(), LearnedPositions(width=16, grid=(2, 3))]
    )
    def test_a_token_is_identified_by_its_place_not_by_its_order(self, positions):
        torch.manual_seed(0)
        transformer = Transformer(width=16, depth=2, num_heads=2, positions=positions)
        awake(transformer)
        tokens, order = torch.randn(2, 6, 16), torch.tensor([3, 0, 5, 1, 4, 2])
        extra = torch.randn(2, 2, 16)
        places = grid_places((2, 3))
        found = transformer(tokens, places=places, grid=(2, 3), extra=extra)
        moved = transformer(tokens[:, order], places=places[order], grid=(2, 3), extra=extra)
        torch.testing.assert_close(moved[:, 2:], found[:, 2:][:, order], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moved[:, :2], found[:, :2], atol=1e-4, rtol=1e-4)
        elsewhere = transformer(tokens[:, order], places=places, grid=(2, 3), extra=extra)
        assert not torch.allclose(elsewhere[:, 2:], found[:, 2:][:, order], atol=1e-2)

    def test_every_parameter_learns(self):
        transformer = Transformer(width=16, depth=2, num_heads=2, positions=RotaryPositions())
        transformer(torch.randn(1, 4, 16), places=grid_places((2, 2)), grid=(2, 2)).pow(3).sum().backward()
        assert {n for n, p in transformer.named_parameters() if p.grad is None or not p.grad.any()} == set()

    @pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"num_heads": 3}, {"mlp_ratio": 0.0}])
    def test_errors(self, wrong):
        with pytest.raises(
            ValueError, match="Transformer: expected width, depth and num_heads of at least 1"
        ):
            Transformer(**({"width": 16, "depth": 1, "num_heads": 2} | wrong))
