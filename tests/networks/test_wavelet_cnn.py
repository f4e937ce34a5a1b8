"""The networks of Cosmos: where height and width are halved, and arguments that do not fit."""

import pytest
import torch

from vq.networks import WaveletCNNDecoder, WaveletCNNEncoder

SMALL = {"base_width": 8, "multipliers": (1, 2, 3), "num_blocks": 1}


@pytest.mark.parametrize(("patch_size", "factor"), [(1, 1), (1, 8), (2, 4), (4, 4), (4, 8)])
def test_sizes(patch_size: int, factor: int) -> None:
    shape = {**SMALL, "patch_size": patch_size, "downsample_factor": factor}
    features = WaveletCNNEncoder(**shape, out_channels=5)(torch.randn(1, 3, 16, 24))
    assert features.shape == (1, 5, 16 // factor, 24 // factor)
    assert WaveletCNNDecoder(**shape, in_channels=5)(features).shape == (1, 3, 16, 24)


def test_convolutions_change_the_size_after_the_first_levels_that_the_data_pass() -> None:
    shape = {**SMALL, "patch_size": 4, "downsample_factor": 8}
    encoder, decoder = WaveletCNNEncoder(**shape, out_channels=5), WaveletCNNDecoder(**shape, in_channels=5)
    assert [len(level) for level in encoder.levels] == [2, 1, 1]
    assert [len(level) for level in decoder.levels] == [3, 2, 2]


@pytest.mark.parametrize(("patch_size", "factor"), [(3, 6), (4, 12), (8, 4), (2, 32)])
def test_factors_that_do_not_fit_raise(patch_size: int, factor: int) -> None:
    for network in (WaveletCNNEncoder, WaveletCNNDecoder):
        with pytest.raises(ValueError, match="expected patch_size and downsample_factor to be powers of 2"):
            network(**SMALL, patch_size=patch_size, downsample_factor=factor)


def test_images_that_do_not_divide_raise() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        WaveletCNNEncoder(**SMALL)(torch.zeros(1, 3, 16, 24))
