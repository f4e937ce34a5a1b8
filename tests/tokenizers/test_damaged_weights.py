"""Damaged weights are refused, or the checkpoint before is taken; what is written is the same for the same content."""

import json
import logging
import random
from pathlib import Path

import pytest
import torch

import vq
from vq.engine.loop.checkpoint_files import write_manifest
from vq.registry import build
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import CheckpointError, find_weights, load_weights, read_weights, save_weights
from vq.tokenizers.manifest import MANIFEST, read_manifest, verify, verify_file

CONFIG = {
    "tokenizer": {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.StridedCNNEncoder", "widths": [2, 2], "num_blocks": 1},
        "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [3, 3]},
        "decoder": {"type": "vq.networks.StridedCNNDecoder", "widths": [2, 2], "num_blocks": 1},
    },
    "train_step": {"type": "vq.engine.ReconstructionStep", "weight_ema": 0.9},
}


def tokenizer(seed: int) -> Tokenizer:
    torch.manual_seed(seed)
    return build(CONFIG["tokenizer"], path="tokenizer")  # type: ignore[no-any-return]


def write_checkpoint(run: Path, step: int, *, has_average: bool = True) -> Path:
    folder = run / "checkpoints" / f"iter_{step}"
    folder.mkdir(parents=True)
    save_weights(tokenizer(step).state_dict(), folder / "model.safetensors", CONFIG)
    if has_average:
        save_weights(tokenizer(100 + step).state_dict(), folder / "model_ema.safetensors", CONFIG)
    (folder / "train_state.pt").write_bytes(b"state")
    write_manifest(folder, step)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (2, 4):
        write_checkpoint(tmp_path / "run", step)
    return tmp_path / "run"


def is_of(module: torch.nn.Module, seed: int) -> bool:
    other = tokenizer(seed).state_dict()
    return all(torch.equal(t, other[name]) for name, t in module.state_dict().items())


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_flipped_bit_of_a_weight_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(tokenizer(1).state_dict(), file, CONFIG)
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    # One bit in each seventh byte of the header, and bits of the tensors.
    bits = [8 * i + i % 8 for i in range(0, header, 7)] + random.Random(0).sample(
        range(8 * header, 8 * len(data)), 200
    )
    for bit in bits:
        file.write_bytes(flip(data, bit))
        with pytest.raises(CheckpointError):
            read_weights(file)
    file.write_bytes(data)
    assert is_of(vq.load(file), 1)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    file, contents = tmp_path / "w.safetensors", set()
    for _ in range(20):
        save_weights({"a": torch.zeros(2, dtype=torch.int64), "b": torch.ones(3)}, file, {"tokenizer": 1})
        contents.add(file.read_bytes())
        save_weights({"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.int64)}, file, {"tokenizer": 1})
        contents.add(file.read_bytes())
    assert len(contents) == 1
    assert read_weights(file)[1] == {"tokenizer": 1}


@pytest.mark.parametrize("damage", ["half", "empty", "a byte", "missing", "no manifest", "another file cut"])
def test_a_run_gives_its_newest_valid_checkpoint(
    run: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run / "checkpoints/iter_4"
    file = folder / "model_ema.safetensors"
    data = file.read_bytes()
    assert find_weights(run) == file
    match damage:
        case "missing":
            file.unlink()
        case "no manifest":
            (folder / MANIFEST).unlink()
        case "another file cut":
            (folder / "train_state.pt").write_bytes(b"")
        case _:
            file.write_bytes(
                {"half": data[: len(data) // 2], "empty": b"", "a byte": flip(data, 8 * len(data) - 9)}[
                    damage
                ]
            )
    with caplog.at_level(logging.WARNING):
        assert is_of(vq.load(run), 102)
    assert len(caplog.records) == 1
    assert "iter_4: damaged" in caplog.text
    assert "taking iter_2" in caplog.text
    if damage != "no manifest":
        with pytest.raises(CheckpointError, match=r"iter_4.*: damaged"):
            vq.load(folder)


def test_each_way_to_name_damaged_weights_is_refused(run: Path) -> None:
    file = run / "checkpoints/iter_4/model.safetensors"
    file.write_bytes(flip(file.read_bytes(), 8 * file.stat().st_size - 20))
    with pytest.raises(CheckpointError, match=r"damaged: model.safetensors: checksum mismatch"):
        find_weights(file)
    with pytest.raises(CheckpointError, match=r"damaged: model.safetensors: checksum mismatch"):
        find_weights(file.with_name("model.pth"))
    with pytest.raises(CheckpointError, match="damaged: the checksum of its tensors and its config"):
        load_weights(tokenizer(0), [file])
    assert find_weights(file.parent).name == "model_ema.safetensors"  # this file is whole


def test_a_run_whose_checkpoints_are_all_damaged_names_each(run: Path) -> None:
    for step in (2, 4):
        (run / f"checkpoints/iter_{step}/model_ema.safetensors").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"every checkpoint is damaged: .*iter_4: damaged: .*iter_2: damaged"
    ):
        vq.load(run)


def test_missing_averages_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path / "run", 4, has_average=False)
    with caplog.at_level(logging.WARNING):
        assert is_of(vq.load(tmp_path / "run"), 4)
    assert "the run averaged its weights, but model_ema.safetensors is missing" in caplog.text


def test_any_malformed_manifest_is_a_damaged_one(run: Path) -> None:
    folder = run / "checkpoints/iter_4"
    manifest = folder / MANIFEST
    good = manifest.read_bytes()
    entry = next(iter(json.loads(good)["files"].values()))
    wrong = [
        "[]",
        "3",
        "null",
        "{}",
        '{"files": 1}',
        '{"files": []}',
        '{"files": {}}',
        '{"files": {"a": 1}}',
        "[" * 100_000,
    ]
    changes = [
        {"bytes": "5"},
        {"bytes": True},
        {"bytes": None},
        {"bytes": 1e400},
        {"sha256": 5},
        {"sha256": []},
    ]
    wrong += [json.dumps({"files": {"model_ema.safetensors": {**entry, **change}}}) for change in changes]
    wrong += [json.dumps({"files": {name: entry}}) for name in ("../x", "", "/etc/passwd", "a\0b", ".", "..")]
    contents = [text.encode() for text in wrong] + [
        b"",
        b"\xff\xfe",
        good[: len(good) // 2],
        b"\xef\xbb\xbf" + good,
    ]
    for content in contents:
        manifest.write_bytes(content)
        assert verify(folder) is not None, content[:80]
        assert find_weights(run).parent.name == "iter_2", content[:80]
        with pytest.raises(CheckpointError, match="damaged"):
            find_weights(folder)
    manifest.unlink()
    manifest.mkdir()
    assert verify(folder) is not None
    manifest.rmdir()
    manifest.write_bytes(good)
    assert verify(folder) is None
    assert verify_file(folder / "model.safetensors") is None
    assert set(read_manifest(folder)) == {"model.safetensors", "model_ema.safetensors", "train_state.pt"}


def test_a_flipped_bit_in_a_manifest_never_ends_in_another_error(run: Path) -> None:
    folder = run / "checkpoints/iter_4"
    good = (folder / MANIFEST).read_bytes()
    for bit in random.Random(0).sample(range(8 * len(good)), 400):
        (folder / MANIFEST).write_bytes(flip(good, bit))
        verify(folder)
        assert find_weights(run).parent.name in ("iter_2", "iter_4")


def test_files_of_the_first_format_have_no_checksum_and_load() -> None:
    old = Path(__file__).parents[1] / "golden/tiny_checkpoint_0.1.safetensors"
    tensors, config = read_weights(old)
    assert config is not None
    assert "tokenizer" in config
    assert tensors
    vq.load(old)


def test_a_run_of_which_only_some_checkpoints_have_a_manifest(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of an older version that was continued: what has a manifest is verified, what has none is not trusted."""
    (run / "checkpoints/iter_2" / MANIFEST).unlink()
    assert find_weights(run).parent.name == "iter_4"
    assert find_weights(run / "checkpoints/iter_2").parent.name == "iter_2"  # it was asked for
    file = run / "checkpoints/iter_4/model_ema.safetensors"
    good = file.read_bytes()
    file.write_bytes(flip(good, 8 * len(good) - 20))
    with pytest.raises(
        CheckpointError, match=r"every checkpoint is damaged.*iter_4.*iter_2: damaged: .*is missing"
    ):
        find_weights(run)
    file.write_bytes(good)
    (run / "checkpoints/iter_4" / MANIFEST).unlink()  # none has one: a run without manifests
    with caplog.at_level(logging.WARNING):
        assert find_weights(run).parent.name == "iter_4"
    (run / "checkpoints/iter_9").mkdir()  # an empty folder
    with caplog.at_level(logging.WARNING):
        assert find_weights(run).parent.name == "iter_4"
    assert (
        "iter_9: expected model.safetensors in this checkpoint folder, got none; taking iter_4" in caplog.text
    )


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "checkpoints/iter_4").rename(run / "checkpoints/iter_400")
    assert verify(run / "checkpoints/iter_400") is not None
    with caplog.at_level(logging.WARNING):
        assert find_weights(run).parent.name == "iter_2"
    assert "iter_400: damaged: MANIFEST.json belongs to step 4" in caplog.text
    with pytest.raises(CheckpointError, match="belongs to step 4"):
        find_weights(run / "checkpoints/iter_400/model.safetensors")
    (run / "checkpoints/iter_400").rename(run / "best")  # a name that says no step
    assert find_weights(run / "best").parent.name == "best"
