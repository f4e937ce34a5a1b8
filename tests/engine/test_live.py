"""What a training shows while it runs: the bar, Weights & Biases, TensorBoard, and callbacks of a page's own."""

import json
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, accepted, refused

from vq import cli
from vq.engine.callbacks import BestScores, ConsoleProgress, MetricsFile, TensorBoard, WandB
from vq.parsing import UsageError

PICTURE = torch.arange(3 * 4 * 6, dtype=torch.uint8).reshape(3, 4, 6)
CONFIG = {"trainer": {"type": "Trainer", "max_steps": 8}}


def note(console: ConsoleProgress) -> str:
    return str(console.progress.tasks[console.task].fields["note"])


def test_the_bar_shows_speed_wait_memory_and_the_best_score(tmp_path: Path) -> None:
    metrics = MetricsFile(directory=tmp_path)
    best = BestScores(directory=tmp_path, directions={"psnr": True, "lpips": False})
    console = ConsoleProgress(batch_size=32, best=best)
    console.on_start(0, 100)
    assert note(console) == ""
    time.sleep(0.05)
    console.on_log(10, {"loss/total": 0.25, "time/data": 0.0125})
    shown = note(console).split("  ")
    assert (shown[0], shown[2]) == ("loss 0.2500", "data wait 12.5 ms")
    assert 0 < float(shown[1].removesuffix(" images/s").replace(",", "")) < 32 * 10 / 0.05
    assert 0 < float(shown[3].removesuffix(" GiB")) < 1000
    for step, psnr in ((10, 20.0), (20, 22.5), (30, 21.0)):
        for callback in (metrics, console):
            callback.on_evaluation_end(step, {"psnr": psnr, "lpips": 0.5}, PICTURE)
    assert note(console).endswith("best psnr 22.5 at step 20")
    continued = ConsoleProgress(best=best)
    continued.on_start(30, 100)
    assert note(continued) == "best psnr 22.5 at step 20"
    continued.on_end(30)
    console.on_end(30)


def test_the_note_is_shown_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = ConsoleProgress(batch_size=8)
    console.progress.disable = False
    console.on_start(0, 10)
    console.on_log(1, {"loss/total": 0.5, "time/data": 0.001})
    console.progress.refresh()
    console.on_end(1)
    shown = capsys.readouterr()
    assert "data wait 1.0 ms" in shown.out + shown.err


def wandb_records(folder: Path) -> Iterator[Any]:
    """The records of an offline run: a log of LevelDB, in blocks of 32 KiB of parts with 7 bytes of header."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if 32768 - at % 32768 < 7 or kind == 0:
            at += 32768 - at % 32768
            continue
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a record in one part, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_wandb_gets_config_scalars_and_pictures_and_continues_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for first in (0, 4):
        logger = WandB(
            directory=tmp_path, config=CONFIG, name="fsq/emoji", project="tokenizers", entity="team"
        )
        logger.on_start(first, 8)
        logger.on_log(first + 2, {"loss/total": 0.5})
        logger.on_evaluation_end(first + 4, {"psnr": 20.0 + first}, PICTURE)
        logger.on_end(first + 4)
    wandb.teardown()  # its process has written everything when it has ended
    known = (tmp_path / "wandb_id.txt").read_text().strip()
    folders = sorted((tmp_path / "wandb").glob(f"offline-run-*-{known}"))
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == len(folders) >= 1
    runs, values = [], {}
    for folder in folders:
        for record in wandb_records(folder):
            if record.WhichOneof("record_type") == "run":
                runs.append(record.run)
            elif record.WhichOneof("record_type") == "history":
                row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                values[int(row["_step"])] = row
    for run in runs:
        assert (run.run_id, run.project, run.entity, run.display_name) == (
            known, "tokenizers", "team", "fsq/emoji",
        )  # fmt: skip
        config = {update.key: update.value_json for update in run.config.update}
        assert json.loads(config["trainer"]) == CONFIG["trainer"]
    assert sorted(values) == [2, 4, 6, 8]
    assert float(values[6]["train/loss/total"]) == 0.5
    assert float(values[8]["val/psnr"]) == 24
    assert (values[8]["val/reconstructions/width"], values[8]["val/reconstructions/height"]) == ("6", "4")
    pictures = [file for folder in folders for file in folder.glob("files/media/images/val/*.png")]
    assert len(pictures) == 2


def names(*words: str) -> dict[str, str] | None:
    import argparse

    parser = argparse.ArgumentParser()
    cli.add_wandb(parser)
    return cli.wandb_names(parser.parse_args(words), "fsq/emoji")


def test_names_of_wandb_come_from_options_then_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROJECT", "ENTITY", "NAME"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    assert names() is None
    assert names("--wandb") == {"name": "fsq/emoji"}
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert names("--wandb") == {"name": "fsq/emoji", "project": "theirs", "entity": "team"}
    given = names("--wandb", "--wandb-project", "mine", "--wandb-name", "a")
    assert given == {"name": "a", "project": "mine", "entity": "team"}
    with pytest.raises(UsageError, match="--wandb-name: has no effect without --wandb; add --wandb"):
        names("--wandb-name", "a")


def test_tensorboard_has_the_config_and_the_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(directory=tmp_path, config=CONFIG)
    board.on_start(0, 8)
    board.on_evaluation_end(4, {"psnr": 20.0}, PICTURE)
    board.on_end(4)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert json.loads("\n".join(lines)) == CONFIG
    assert all(line.startswith("    ") for line in lines)  # shown as it is, not as Markdown
    (picture,) = events.Images("val/reconstructions")
    assert (picture.step, picture.width, picture.height) == (4, 6, 4)


OWN = '''
from pathlib import Path
from vq.engine import Callback

class LossFile(Callback):
    """Writes the loss of some steps to a file in the run folder."""

    def __init__(self, *, directory: Path, every: int = 1) -> None:
        self.file, self.every = directory / "loss.txt", every

    def on_log(self, step, scalars):
        if step % self.every == 0:
            with self.file.open("a") as file:
                file.write(f"{step} {scalars['loss/total']}\\n")

class Other:
    pass
'''


def page(folder: Path, callbacks: str) -> str:
    """A page with callbacks of its own, in the folder, beside the module that they come from."""
    text = TINY.read_text().replace("log_every=2)", f"log_every=2, callbacks={callbacks})")
    assert "callbacks" in text
    (folder / "own_callbacks.py").write_text(OWN)
    (folder / "page.py").write_text("from own_callbacks import LossFile, Other\n" + text)
    return "page.py"


def test_a_page_has_callbacks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = page(tmp_path, "[dict(type=LossFile, every=4)]")
    accepted("train", "run", own, "--config-options", "max_steps:8")
    rows = [json.loads(line) for line in Path("work_dirs/run/metrics.jsonl").read_text().splitlines()]
    losses: Sequence[str] = [f"{row['step']} {row['loss/total']}" for row in rows if row["split"] == "train"]
    assert Path("work_dirs/run/loss.txt").read_text().splitlines() == [losses[1], losses[3]]
    assert "unknown argument 'evary'; did you mean 'every'?" in refused(
        "train", "typo", page(tmp_path, "[dict(type=LossFile, evary=4)]")
    )
    assert "trainer.callbacks[0].directory: expected no such key, for the value comes from NAME" in refused(
        "train", "twice", page(tmp_path, "[dict(type=LossFile, directory='x')]")
    )
    said = refused("train", "other", page(tmp_path, "[dict(type=Other)]"))
    assert "Callback" in said  # the type checks of the tests refuse it in words of their own
    assert "Other" in said
