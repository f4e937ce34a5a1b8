"""What every teacher guarantees, tested on the teacher that works without a download."""

import pytest
import torch
from torch import nn

from vq.errors import ConfigError
from vq.networks import EfficientNetLite0, EfficientNetTeacher, TeacherEncoder
from vq.registry import build


@pytest.fixture(scope="module")
def teacher() -> EfficientNetTeacher:
    return EfficientNetTeacher()


@pytest.fixture
def image() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 96) * 2 - 1


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_features_are_the_maps_of_the_network(factor: int, image: torch.Tensor) -> None:
    teacher = EfficientNetTeacher(downsample_factor=factor, image_size=64)
    network = EfficientNetLite0(size=64)
    square = image[..., :64].contiguous()
    wanted = network.pyramid(square)[[2, 4, 8, 16, 32].index(factor)]
    found = teacher(square)
    assert found.shape == (2, 64 // factor, 64 // factor, teacher.channels)
    assert torch.equal(found.movedim(-1, 1), wanted)


def test_a_change_of_one_patch_changes_its_feature_most(teacher: EfficientNetTeacher) -> None:
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) - 0.5
    before = teacher(image)
    for row, column in ((0, 0), (0, 7), (2, 3), (5, 7)):
        changed = image.clone()
        changed[:, :, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] *= -1
        change = (teacher(changed) - before).norm(dim=-1)[0]
        assert divmod(int(change.argmax()), 8) == (row, column)


def test_is_frozen_in_eval_mode_and_in_no_state_dict(
    teacher: EfficientNetTeacher, image: torch.Tensor
) -> None:
    before = [buffer.clone() for buffer in teacher.buffers()]
    student = nn.Conv2d(3, 112, 16, stride=16)
    step = nn.ModuleDict({"student": student, "teacher": teacher}).train()
    assert not any(module.training for module in teacher.modules())
    assert set(step.state_dict()) == {"student.weight", "student.bias"}
    image.requires_grad_()
    target = teacher(image)
    assert not target.requires_grad
    loss = (student(image).movedim(1, -1) - target).square().mean()
    loss.backward()  # refused if the target were an inference tensor
    torch.optim.SGD(step.parameters(), lr=1.0).step()
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.buffers(), strict=True))


def test_computes_in_the_type_of_autocast_and_returns_float32(
    teacher: EfficientNetTeacher, image: torch.Tensor
) -> None:
    exact = teacher(image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = teacher(image)
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.98


def test_refusals(teacher: EfficientNetTeacher) -> None:
    with pytest.raises(
        ValueError,
        match=r"EfficientNetTeacher: .* multiples of 16, got 60x64; .* for example to 48x64",
    ):
        teacher(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match=r"downsample_factor to be one of \(2, 4, 8, 16, 32\), got 14"):
        EfficientNetTeacher(downsample_factor=14)
    with pytest.raises(ValueError, match="image_size to be a multiple of the patch size 16, got 72; take 64"):
        EfficientNetTeacher(image_size=72)
    with pytest.raises(ConfigError, match="expected a teacher, got EfficientNetLite0, a feature network"):
        build({"type": "vq.networks.EfficientNetLite0"}, path="train_step.losses.align.teacher")


class TestEncoder:
    def test_gives_the_features_with_channels_first(
        self, teacher: EfficientNetTeacher, image: torch.Tensor
    ) -> None:
        encoder = TeacherEncoder(teacher=teacher)
        assert (encoder.out_channels, encoder.downsample_factor, len(encoder.state_dict())) == (112, 16, 0)
        assert torch.equal(encoder(image).movedim(1, -1), teacher(image))

    def test_shows_the_teacher_a_smaller_image(
        self, teacher: EfficientNetTeacher, image: torch.Tensor
    ) -> None:
        encoder = TeacherEncoder(teacher=teacher, downsample_factor=32)
        resized = torch.nn.functional.interpolate(image, size=(32, 48), mode="bilinear", antialias=True)
        assert torch.equal(encoder(image).movedim(1, -1), teacher(resized.clamp(-1, 1)))
        with pytest.raises(ValueError, match=r"TeacherEncoder: .* multiples of 32, got 48x64"):
            encoder(image[..., :48, :64])

    def test_refuses_a_teacher_that_resizes(self) -> None:
        with pytest.raises(
            ValueError, match="takes images in their own size, got image_size=64; leave it out"
        ):
            TeacherEncoder(teacher=EfficientNetTeacher(image_size=64))
