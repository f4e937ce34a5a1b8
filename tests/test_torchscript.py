"""The tensors of TorchScript archives, which are read without running their code."""

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from vq.pretrained import WeightsFileError, read_tensors


class Inner(nn.Module):
    """Has what CLIP's archives have: tensors of two types, a list, numbers, and tensors that share a storage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, bias=False).half()
        self.norm = nn.LayerNorm(4)
        self.register_buffer("counts", torch.arange(6).reshape(2, 3).T)
        self.register_buffer("count", self.counts[1])
        self.sizes, self.rate = [1, 2], 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) * self.rate


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """An archive and the state dict of the module in it."""
    torch.manual_seed(0)
    module = nn.Sequential(Inner())
    file = tmp_path_factory.mktemp("archive") / "model.pt"
    with warnings.catch_warnings(
        action="ignore", category=FutureWarning
    ):  # TorchScript is no longer developed
        torch.jit.trace(module, torch.zeros(1, 4)).save(str(file))
    return file, module.state_dict()


def test_tensors_have_their_names_types_and_values(archive: tuple[Path, dict[str, torch.Tensor]]) -> None:
    file, wanted = archive
    found = read_tensors(file)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def rewritten(file: Path, target: Path, ending: str, content: bytes) -> Path:
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(ending) else old.read(name))
    return target


def test_no_code_runs(archive: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    # Code that does not compile is never looked at, and a pickle that calls something else is refused.
    broken = rewritten(archive[0], tmp_path / "broken.pt", ".py", b"def forward(: the code of the archive")
    assert read_tensors(broken).keys() == archive[1].keys()
    hostile = rewritten(archive[0], tmp_path / "hostile.pt", "data.pkl", pickle.dumps(Touch()))
    with pytest.raises(WeightsFileError, match=r"expected modules and tensors, found .*\.touch"):
        read_tensors(hostile)
    assert not (tmp_path / "ran").exists()


def test_damage_is_reported(archive: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    short = rewritten(archive[0], tmp_path / "short.pt", "data/0", b"\0\0")
    with pytest.raises(
        WeightsFileError, match=r"short.pt: a TorchScript archive that is damaged.* buffer length"
    ):
        read_tensors(short)
    empty = rewritten(archive[0], tmp_path / "empty.pt", "data/0", b"")
    with pytest.raises(WeightsFileError, match=r"empty.pt: .*out of bounds"):
        read_tensors(empty)
    with pytest.raises(WeightsFileError, match="expected a module, got dict"):
        read_tensors(rewritten(archive[0], tmp_path / "dict.pt", "data.pkl", pickle.dumps({})))
