"""TimmClassifier equals timm's classifier, is frozen, differentiable, and names what is missing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vq.losses import LogitsLoss
from vq.networks import TimmClassifier

timm = pytest.importorskip("timm")
SMALL = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "small.safetensors"
    tensors = timm.create_model(SMALL).state_dict()
    # As in files of before 2018; training alone needs these counts.
    save_file({k: t for k, t in tensors.items() if not k.endswith(".num_batches_tracked")}, file)
    return file


def test_equals_timm(small: Path) -> None:
    theirs = timm.create_model(SMALL).eval()
    theirs.load_state_dict(timm.models.load_state_dict(str(small)), strict=False)
    network = TimmClassifier(name=SMALL, weights=str(small), image_size=32).double()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    mean, deviation = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    wanted = theirs.double()((image - mean) / deviation)
    torch.testing.assert_close(network.logits(image * 2 - 1), wanted, atol=1e-5, rtol=1e-5)
    assert wanted.std() > 0


def test_frozen_unsaved_and_differentiable(small: Path) -> None:
    network = TimmClassifier(name=SMALL, weights=str(small), image_size=48)
    assert (list(network.parameters()), len(network.state_dict())) == ([], 0)
    image = torch.rand(2, 3, 20, 30) * 2 - 1
    reconstruction = (image / 2).requires_grad_()
    LogitsLoss(network=network.train())(reconstruction, image).backward()
    assert reconstruction.grad.isfinite().all()
    assert reconstruction.grad.abs().sum() > 0
    assert not any(module.training for module in network.modules())


def test_what_is_wrong_is_named(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
    monkeypatch.setenv("VQ_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="vq weights"):
        TimmClassifier()
    with pytest.raises(
        ValueError, match=r"expected a classifier, got 'vit_small_patch16_224.dino', which has no"
    ):
        TimmClassifier(name="vit_small_patch16_224.dino", weights=str(small))
    with pytest.raises(ValueError, match="TimmClassifier: expected the weights of test_efficientnet"):
        TimmClassifier(name="test_efficientnet", weights=str(small))
    with pytest.raises(
        ValueError, match=r"expected the name of weights that timm knows, got 'resnet50.none'"
    ):
        TimmClassifier(name="resnet50.none", weights=str(small))
