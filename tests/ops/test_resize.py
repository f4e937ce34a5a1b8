"""Resizing of the evaluation protocols against the packages that define them."""

import numpy as np
import pytest
import torch
from PIL import Image

from vq.ops.resize import resize_like_pillow, resize_like_tensorflow_1


def pixels(height: int, width: int) -> torch.Tensor:
    return torch.randint(256, (2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(32, 32), (40, 25), (310, 299)])
def test_tensorflow_1_bit_for_bit(shape):
    package = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    image = pixels(*shape).float()
    wanted = package.interpolate_bilinear_2d_like_tensorflow1x(image, size=(299, 299), align_corners=False)
    assert torch.equal(resize_like_tensorflow_1(image, 299), wanted)


def test_tensorflow_1_has_no_half_pixel_centres():
    row = torch.tensor([0.0, 10.0]).expand(1, 1, 2, 2)
    assert resize_like_tensorflow_1(row, 4)[0, 0, 0].tolist() == [0, 5, 10, 10]


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("shape", [(32, 40), (70, 64)])
def test_pillow_as_clean_fid_calls_it(shape, rounded):
    image = pixels(*shape)
    found = resize_like_pillow(image, 48, rounded=rounded)
    for i, picture in enumerate(image.numpy().transpose(0, 2, 3, 1)):
        if rounded:
            wanted = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BICUBIC))
        else:
            planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
            sized = [np.asarray(plane.resize((48, 48), Image.Resampling.BICUBIC)) for plane in planes]
            wanted = np.stack(sized, axis=2).clip(0, 255)
        assert np.array_equal(found[i].permute(1, 2, 0).numpy(), wanted)
    assert found.dtype == torch.float32
