"""TimmViTFeatures equals timm's features, is frozen, and is differentiable."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vq.networks import DINODiscriminator, TimmViTFeatures
from vq.packages import MissingPackageError

timm = pytest.importorskip("timm")
SMALL = "test_vit.r160_in1k"  # 6 blocks of 64 channels, patches of 16 px
COLOURED = "deit_tiny_patch16_224.fb_in1k"  # normalises with ImageNet's mean and deviation, as DINO does


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "small.safetensors"
    save_file(timm.create_model(SMALL, num_classes=7).state_dict(), file)
    return file


def make(file: Path, **arguments) -> TimmViTFeatures:
    return TimmViTFeatures(
        **{"name": SMALL, "weights": str(file), "blocks": (1, 5), "image_size": 48, **arguments}
    )


def test_equals_timm_with_a_file_of_torch(tmp_path: Path) -> None:
    theirs = timm.create_model(COLOURED, num_classes=0, dynamic_img_size=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "deit.pth")
    network = TimmViTFeatures(
        name=COLOURED, weights=str(tmp_path / "deit.pth"), blocks=(0, 11), image_size=32
    )
    kept: dict[int, torch.Tensor] = {}
    for index in (0, 11):
        theirs.blocks[index].register_forward_hook(lambda *a, index=index: kept.update({index: a[2]}))
    image = torch.rand(2, 3, 32, 32)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        theirs((image - mean) / deviation)
        found = network.pyramid(image * 2 - 1)
    assert network.channels == (192, 192)
    for features, tokens in zip(found, kept.values(), strict=True):
        assert torch.allclose(features, tokens[:, 1:].mT.reshape(2, 192, 2, 2), atol=1e-5)


def test_frozen_unsaved_and_differentiable(small: Path) -> None:
    network = make(small)
    assert (list(network.parameters()), len(network.state_dict())) == ([], 0)
    image = torch.randn(2, 3, 20, 30, requires_grad=True)
    maps = network.pyramid(image)
    assert [tuple(features.shape) for features in maps] == [(2, 64, 3, 3)] * 2
    sum(features.square().mean() for features in maps).backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0
    assert network.double().pyramid(image.double())[0].dtype == torch.float64


def test_the_discriminator_judges_its_tokens(small: Path) -> None:
    judge = DINODiscriminator(network=make(small), width=8)
    image = torch.randn(2, 3, 32, 32, requires_grad=True)
    logits = judge(image)
    assert logits.shape == (2, 2 * 9)
    logits.square().mean().backward()
    assert image.grad.abs().sum() > 0
    assert all(name.startswith("heads.") for name in judge.state_dict())


def test_is_built_whole_where_parts_are_made_on_the_meta_device(small: Path) -> None:
    with torch.device("meta"):
        network = make(small)
    assert {buffer.device.type for buffer in network.buffers()} == {"cpu"}


def test_refusals(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=r"'dino/dino_deitsmall16_pretrain.pth' is neither at .*; run `vq weights dino`",
    ):
        TimmViTFeatures()
    with pytest.raises(
        ValueError, match=r"expected blocks to be ascending numbers from 0 to 5, got \(2, 6\)"
    ):
        make(small, blocks=(2, 6))
    with pytest.raises(
        ValueError, match="expected image_size to be a multiple of the patch size 16, got 40; take 32"
    ):
        make(small, image_size=40)
    with pytest.raises(ValueError, match="expected a network that timm knows, got 'vit_nano'"):
        make(small, name="vit_nano")
    with pytest.raises(ValueError, match="expected a vision transformer of timm, got 'resnet18'"):
        make(small, name="resnet18")
    save_file({"cls_token": torch.zeros(1, 1, 3), "else": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"expected the weights of test_vit.r160_in1k in .*tensors that differ"
    ):
        make(tmp_path / "other.safetensors")
    monkeypatch.setitem(sys.modules, "timm", None)
    message = r"TimmViTFeatures needs the package timm, which is not installed; .*\[teachers\]"
    with pytest.raises(MissingPackageError, match=message):
        make(small)
