"""A folder of generated pictures holds the samples that were asked for, whole, and nothing else."""

import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vq.data import ImageFolder
from vq.data.decode import ImageDecoder
from vq.engine.jobs.generation import ImageSource, plan, write_images
from vq.engine.jobs.sample_folder import SampleFolderError
from vq.generators import DecoderTransformer, TransformerGenerator
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.ops.images import save_array, save_png
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

GIVEN: dict[str, Any] = {"settings": {"weights_sha256": "x"}, "batch_size": 4}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[4, 4]),
        decoder=StridedCNNDecoder(widths=(8, 8), num_blocks=1),
    )
    generator = TransformerGenerator(
        transformer=DecoderTransformer(width=16, depth=1, num_heads=2),
        vocabulary_size=16,
        num_classes=3,
        grid=(4, 4),
    )
    return ImageSource(generator=generator.eval().double(), tokenizer=tokenizer.eval(), sampling={}, seed=0)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*.png"))


def test_a_reader_of_the_folder_finds_the_samples_alone(source: ImageSource, tmp_path: Path) -> None:
    wanted = plan([0, 1, 2], num=None, num_per_class=2)
    picture = write_images(source, wanted, tmp_path / "g", **GIVEN)
    assert len(ImageFolder(root=tmp_path / "g")) == 6
    assert picture == tmp_path / "g_grid.png"
    assert picture.is_file()
    assert not list((tmp_path / "g").glob(".*"))


def test_a_class_that_is_given_twice_gets_pictures_of_its_own_each_time() -> None:
    files = [w.file for w in plan([1, 1, 2], num=6, num_per_class=None)]
    assert len(set(files)) == 6
    assert [w.label for w in plan([1, 1, 2], num=None, num_per_class=2)] == [1, 1, 2, 1, 1, 2]
    assert len({w.file for w in plan([1, 1], num=None, num_per_class=3)}) == 6


def test_a_smaller_second_run_leaves_only_what_it_lists(source: ImageSource, tmp_path: Path) -> None:
    write_images(source, plan([0], num=3, num_per_class=None), tmp_path / "g", **GIVEN)
    write_images(source, plan([0], num=1, num_per_class=None), tmp_path / "g", **GIVEN)
    listed = json.loads((tmp_path / "g" / "samples.json").read_text())["samples"]
    assert [s["file"] for s in listed] == names(tmp_path / "g") == ["class0000_00000.png"]


@pytest.mark.parametrize("name", ["mine.png", "class0000_00009.png", "photo.JPG"])
def test_a_picture_of_another_origin_is_refused_and_kept(
    source: ImageSource, tmp_path: Path, name: str
) -> None:
    wanted = plan([0], num=2, num_per_class=None)
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / name).write_bytes(b"kept")
    with pytest.raises(SampleFolderError, match="`vq generate` did not write"):
        write_images(source, wanted, tmp_path / "before", **GIVEN)
    write_images(source, wanted, tmp_path / "g", **GIVEN)
    (tmp_path / "g" / name).write_bytes(b"kept")
    with pytest.raises(SampleFolderError, match="is not an image that `vq generate` noted"):
        write_images(source, wanted, tmp_path / "g", **GIVEN)
    assert (tmp_path / "g" / name).read_bytes() == (tmp_path / "before" / name).read_bytes() == b"kept"


def test_a_grid_that_is_there_already_is_not_overwritten(source: ImageSource, tmp_path: Path) -> None:
    (tmp_path / "g_grid.png").write_bytes(b"kept")
    with pytest.raises(SampleFolderError, match=r"g_grid\.png"):
        write_images(source, plan([0], num=1, num_per_class=None), tmp_path / "g", **GIVEN)
    assert (tmp_path / "g_grid.png").read_bytes() == b"kept"


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_picture_counts_as_made_only_if_its_bytes_are_those_that_were_written(
    source: ImageSource, tmp_path: Path, is_finished: bool
) -> None:
    wanted = plan([0, 1], num=4, num_per_class=None)
    folder = tmp_path / "g"
    if is_finished:
        write_images(source, wanted, folder, **GIVEN)
    else:  # killed after the third picture

        class Killed(Exception):  # noqa: N818
            pass

        def die(done: int, total: list[int] = [0]) -> None:  # noqa: B006
            total[0] += done
            if total[0] >= 3:
                raise Killed

        with pytest.raises(Killed):
            write_images(source, wanted, folder, **(GIVEN | {"batch_size": 1}), on_progress=die)
        assert not (folder / "samples.json").exists()
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    cut, flipped, kept = (folder / w.file for w in wanted[:3])
    cut.write_bytes(before[cut.name][:-20])
    flipped.write_bytes(before[flipped.name][:60] + b"\x00" + before[flipped.name][61:])
    untouched = kept.stat().st_mtime_ns
    write_images(source, wanted, folder, **GIVEN)
    assert len(names(folder)) == 4
    for name, content in before.items():
        assert (folder / name).read_bytes() == content
    assert kept.stat().st_mtime_ns == untouched


def test_a_torn_note_or_a_damaged_record_is_no_traceback(source: ImageSource, tmp_path: Path) -> None:
    wanted = plan([0], num=2, num_per_class=None)
    write_images(source, wanted, tmp_path / "g", **GIVEN)
    (tmp_path / "g" / ".written_0.jsonl").write_text('["class0000_00000.png", "dead')
    write_images(source, wanted, tmp_path / "g", **GIVEN)
    for text in ("[]", "{", "\xff", '{"seed": 1}'):
        (tmp_path / "g" / "settings.json").write_text(text, encoding="latin-1")
        with pytest.raises(SampleFolderError, match="choose another --out"):
            write_images(source, wanted, tmp_path / "g", **GIVEN)


def test_what_decides_the_pictures_is_part_of_the_settings(source: ImageSource, tmp_path: Path) -> None:
    wanted = plan([0], num=1, num_per_class=None)
    write_images(source, wanted, tmp_path / "g", **GIVEN)
    torch.manual_seed(1)
    other = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[4, 4]),
        decoder=StridedCNNDecoder(widths=(8, 8), num_blocks=1),
    ).eval()
    with pytest.raises(SampleFolderError, match="tokenizer_sha256"):
        write_images(replace(source, tokenizer=other), wanted, tmp_path / "g", **GIVEN)


def many_channels(channels: int) -> ImageSource:
    torch.manual_seed(0)
    network: dict[str, Any] = {"widths": (8, 8), "num_blocks": 1, "image_channels": channels}
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(**network),
        quantizer=FiniteScalarQuantizer(levels=[4, 4]),
        decoder=StridedCNNDecoder(**network),
    )
    transformer = DecoderTransformer(width=16, depth=1, num_heads=2)
    generator = TransformerGenerator(
        transformer=transformer, vocabulary_size=16, num_classes=3, grid=(4, 4)
    ).eval()
    return ImageSource(generator=generator, tokenizer=tokenizer.eval(), sampling={}, seed=0)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_grey_and_rgba_images_are_png_files(channels: int, mode: str, tmp_path: Path) -> None:
    source = many_channels(channels)
    wanted = plan([0, 1], num=None, num_per_class=1)
    grid = write_images(source, wanted, tmp_path / "g", **GIVEN)
    assert not list((tmp_path / "g").glob("*.npy"))
    for one, image in zip(wanted, source.draw(wanted), strict=True):
        with Image.open(tmp_path / "g" / one.file) as picture:
            assert picture.mode == mode
        assert torch.equal(ImageDecoder(channels=channels).read(tmp_path / "g" / one.file), image)
    with Image.open(grid) as picture:
        assert picture.mode == "RGB"


def test_images_of_many_channels_are_arrays_beside_previews(tmp_path: Path) -> None:
    source, folder = replace(many_channels(6), rgb=(5, 4, 3)), tmp_path / "g"
    wanted = plan([0, 1], num=None, num_per_class=2)
    write_images(source, wanted, folder, **GIVEN)
    arrays = ImageFolder(root=folder, extensions=(".npy",), channels=6)
    previews = ImageFolder(root=folder, extensions=(".png",))
    order = sorted(range(4), key=lambda i: wanted[i].file)
    for i, image in zip(range(4), source.draw([wanted[i] for i in order]), strict=True):
        assert torch.equal(arrays.read(i), image)
        assert torch.equal(previews.read(i), image[[5, 4, 3]])
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    assert [s["array"]["file"] for s in samples] == [f"{Path(w.file).stem}.npy" for w in wanted]

    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "class0000_00000.npy").unlink()  # a lost array is written again
    write_images(source, wanted, folder, **GIVEN)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    write_images(source, wanted[:1], folder, **GIVEN)  # arrays that are no longer wanted are removed
    assert sorted(f.name for f in folder.glob("*.*g")) == [wanted[0].file]
    assert [f.name for f in folder.glob("*.npy")] == [f"{Path(wanted[0].file).stem}.npy"]


def killed_while(write: Callable[[], object]) -> None:
    """Calls a function in a process that is killed when the file is written and has not got its name yet."""
    pid = os.fork()
    if pid == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        write()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_a_killed_process_left_half_written_is_removed(
    source: ImageSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, wanted = tmp_path / "g", plan([0, 1], num=None, num_per_class=1)
    write_images(source, wanted[:1], folder, **GIVEN)
    pixels = torch.zeros(5, 4, 4, dtype=torch.uint8)
    killed_while(lambda: save_png(pixels[:3], folder / "class0001_00000.png"))
    killed_while(lambda: save_array(pixels, folder / "class0001_00000.png"))
    killed_while(lambda: save_png(pixels[:3], tmp_path / "g_grid.png"))
    left = [*folder.glob(".class*"), *tmp_path.glob(".g_grid*")]
    assert len(left) == 3
    of_a_process_that_runs = folder / f".class0002_00000.png.{os.getpid()}.tmp"
    of_others = folder / ".cat.png.999999999.tmp"
    of_a_process_that_runs.touch()
    of_others.touch()
    with caplog.at_level(logging.INFO):
        write_images(source, wanted, folder, **GIVEN)
    assert not any(file.exists() for file in left)
    assert of_a_process_that_runs.exists()
    assert of_others.exists()
    assert "removed 3 unfinished files of processes that were killed" in caplog.text
    assert names(folder) == ["class0000_00000.png", "class0001_00000.png"]
