"""DiffAug: each augmentation does what it documents, to each image by itself, and passes gradients."""

import pytest
import torch

from vq.layers.diff_augment import DiffAugment


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(64, 3, 16, 24) + 0.5


def test_translation_moves_up_to_an_eighth_and_fills_with_zeroes(images: torch.Tensor) -> None:
    moved = DiffAugment(changes=["translation"])(images)
    shifts = set()
    for image, out in zip(images, moved, strict=True):
        kept = (out[0] != 0).nonzero()
        (top, left), (bottom, right) = kept.min(0).values.tolist(), kept.max(0).values.tolist()
        dy, dx = top or bottom - 15, left or right - 23
        shifts.add((dy, dx))
        assert torch.equal(
            out[:, top : bottom + 1, left : right + 1],
            image[:, top - dy : bottom + 1 - dy, left - dx : right + 1 - dx],
        )
    assert {dy for dy, _ in shifts} == {-2, -1, 0, 1, 2}
    assert {dx for _, dx in shifts} == {-3, -2, -1, 0, 1, 2, 3}


def test_cutout_blanks_a_rectangle_of_at_most_half_the_sides(images: torch.Tensor) -> None:
    out = DiffAugment(changes=["cutout"])(images)
    holes = (out == 0).all(dim=1)
    assert torch.equal(out[~holes.unsqueeze(1).expand_as(out)], images[~holes.unsqueeze(1).expand_as(out)])
    areas = [int(hole.sum()) for hole in holes]
    assert max(areas) == 8 * 12
    assert min(areas) < 8 * 12
    assert len({tuple(hole.nonzero()[0].tolist()) for hole in holes if hole.any()}) > 10


def test_color_changes_brightness_saturation_and_contrast_of_each_image(images: torch.Tensor) -> None:
    out = DiffAugment(changes=["color"])(images)
    means = (out - images).mean(dim=(1, 2, 3))
    assert -0.5 <= means.min() < -0.3
    assert 0.3 < means.max() <= 0.5
    grey = images.mean(dim=1, keepdim=True).expand_as(images)
    change = DiffAugment(changes=["color"])(grey)
    torch.testing.assert_close(change, change.mean(dim=1, keepdim=True).expand_as(change))  # grey stays grey
    contrast = change.flatten(1).std(dim=1) / grey.flatten(1).std(dim=1)
    assert 0.5 <= contrast.min() < 0.6
    assert 1.4 < contrast.max() <= 1.5


def test_gradients_pass_and_the_generator_decides(images: torch.Tensor) -> None:
    images.requires_grad_()
    torch.manual_seed(1)
    first = DiffAugment()(images)
    torch.manual_seed(1)
    assert torch.equal(first, DiffAugment()(images))
    first.square().sum().backward()
    assert (images.grad != 0).any(dim=(1, 2, 3)).all()


def test_unknown_changes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"DiffAugment: expected changes out of \['color', .*, got \['blur'\]"
    ):
        DiffAugment(changes=["blur"])


@pytest.mark.parametrize("channels", [1, 6])
def test_images_of_any_channels_are_augmented(images: torch.Tensor, channels: int) -> None:
    image = images[:, :1].repeat(1, channels, 1, 1) * torch.linspace(0.5, 1, channels).reshape(-1, 1, 1)
    for change in ("color", "translation", "cutout"):
        out = DiffAugment(changes=[change])(image)
        assert out.shape == image.shape
        assert all(not torch.equal(a, b) for a, b in zip(out, image, strict=True)) or change == "translation"
    out = DiffAugment(changes=["color"])(image)
    if channels == 1:  # saturation leaves grey as it is, so that only an affine map of each image remains
        gain = out.flatten(1).std(dim=1) / image.flatten(1).std(dim=1)
        assert 0.5 <= gain.min() < 0.6
        assert 1.4 < gain.max() <= 1.5
        shift = out - image * gain.reshape(-1, 1, 1, 1)
        torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift), rtol=0, atol=1e-5)
