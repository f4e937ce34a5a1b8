"""Keys, tokens and passwords are neither stored with a run nor shown."""

import json
import time
from pathlib import Path

import pytest
from commands import TINY, accepted, refused

from vq.text import holds_secret, without_secrets

HEX = "0123456789abcdef0123456789abcdef01234567"
PLAIN = "correct-horse"


@pytest.fixture(autouse=True)
def no_other_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", HEX)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"login with {HEX} failed", "login with *** failed"),
        ("at https://user:pass@example.org/a@b", "at https://***@example.org/a@b"),
        ("hf_abcdefghijklmnop, sk-proj-abcdefghijkl", "***, ***"),
        (f"S3_ACCESS_KEY={PLAIN} HF_TOKEN={PLAIN}", "S3_ACCESS_KEY=*** HF_TOKEN=***"),
        (f'{{"password": "{PLAIN}", "api-key": "{PLAIN}"}}', '{"password": "***", "api-key": "***"}'),
        (f"--api-key {PLAIN} --token={PLAIN}", "--api-key *** --token=***"),
        (f".data.token:{PLAIN}, secret = '{PLAIN}'", ".data.token:***, secret = '***'"),
    ],
)
def test_a_secret_is_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"commit {HEX[::-1]}", "num_tokens=100000000 tokens: a_long_word", "class_token='learned_code'",
        "key: picture_0001.png", "https://example.org:8080/a@b", "a disk-abcdefghijklmnop", "MONKEY=picture_0001",
        "step 5: samples: batch 4, rank 1: picture_04.png",
    ],
)  # fmt: skip
def test_what_is_none_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_a_long_text_takes_no_time() -> None:
    began = time.process_time()
    for piece in ("0", "a-", "_", "://", "--a", "token ", "token.", "api_", "hf_"):
        without_secrets(piece * (50_000 // len(piece)))
    assert time.process_time() - began < 3


def test_settings() -> None:
    assert holds_secret("storage.password", PLAIN)
    assert holds_secret("root", "s3://me:mine@bucket/pictures")
    assert not holds_secret("root", "s3://bucket/pictures")
    assert not holds_secret("dataset.revision", HEX[::-1])


def test_a_run_and_its_report_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_SECRET", PLAIN)
    monkeypatch.setattr("sys.argv", ["vq", "train", "--api-key", "abcdefghijk", f"--note={PLAIN}", "plain"])
    page = Path(f"{PLAIN}.py")
    page.write_text(TINY.read_text())
    accepted("train", "run", page, "--config-options", "max_steps:2")
    run = Path("work_dirs/run")
    logged = (run / "log.txt").read_text()
    (run / "log.txt").write_text(f"{logged}12:00:00 a line of an earlier version: token=abcdefghijk\n")
    accepted("report", "run")
    command = json.loads((run / "environment.json").read_text())["command"]
    assert command[1:] == ["vq", "train", "--api-key", "***", "--note=***", "plain"]
    assert "config: ***.py" in logged
    assert "an earlier version: token=***" in (run / "report.html").read_text()
    texts = [
        file
        for file in run.rglob("*")
        if file.suffix in (".json", ".html", ".jsonl", ".py") and file.is_file()
    ]
    assert len(texts) > 6
    for file in texts:
        assert HEX not in file.read_text()
        if file.name != page.name:
            assert PLAIN not in file.read_text(), file
            assert "abcdefghijk" not in file.read_text(), file


def test_a_config_with_a_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backup = ".checkpointer.backup_to::s3://me:mine@bucket/backups"
    said = refused("train", "run", TINY, "--override", backup)
    assert "checkpointer.backup_to: expected no key, token or password" in said
    assert "mine" not in said.replace(backup, "")
    assert not Path("work_dirs/run/config.json").exists()
