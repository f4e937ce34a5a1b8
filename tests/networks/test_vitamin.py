"""The networks of UniTok: attention between all positions, projections by attention, and arguments that do not fit."""

import pytest
import torch

from vq.layers.gated import AttentionProjection
from vq.networks import ViTaminDecoder, ViTaminEncoder

SMALL = {"widths": (8, 12), "depths": (1, 2), "width": 16, "depth": 1, "num_heads": 2}


def test_every_position_sees_the_whole_image() -> None:
    encoder = ViTaminEncoder(**SMALL, out_channels=4)
    image = torch.randn(1, 3, 64, 96, requires_grad=True)
    features = encoder(image)
    assert features.shape == (1, 4, 4, 6)
    features[0, :, 0, 0].sum().backward()
    assert (image.grad[0, :, -16:, -16:] != 0).any()


def test_sizes_of_the_decoder() -> None:
    assert ViTaminDecoder(**SMALL, in_channels=4)(torch.randn(2, 4, 2, 3)).shape == (2, 3, 32, 48)


@pytest.mark.parametrize("sizes", [(12, 4), (4, 12), (4, 4)])
def test_projection_mixes_tokens_in_any_order(sizes: tuple[int, int]) -> None:
    projection = AttentionProjection(in_channels=sizes[0], out_channels=sizes[1]).double()
    tokens = torch.randn(2, 5, sizes[0], dtype=torch.float64)
    order = torch.tensor([3, 1, 4, 0, 2])
    found = projection(tokens)
    assert found.shape == (2, 5, sizes[1])
    torch.testing.assert_close(projection(tokens[:, order]), found[:, order])
    changed = tokens.clone()
    changed[:, 4, 0] += 1
    assert not torch.allclose(projection(changed)[:, 0], found[:, 0])


def test_arguments_that_do_not_fit_raise() -> None:
    with pytest.raises(ValueError, match="of which one divides the other, got 6 and 4"):
        AttentionProjection(in_channels=6, out_channels=4)
    for network in (ViTaminEncoder, ViTaminDecoder):
        with pytest.raises(ValueError, match="expected a depth for each of the widths"):
            network(**{**SMALL, "depths": (1,)})
        with pytest.raises(ValueError, match="num_heads to divide width"):
            network(**{**SMALL, "num_heads": 3})
