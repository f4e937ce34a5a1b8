"""Files from a real HTTP server on this machine: cut, resumed, wrong, missing; and the command that brings them."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vq import known_weights, pretrained, weights
from vq.download import DownloadError, WrongFileError, fetch, file_name, is_address
from vq.errors import UserError
from vq.files import sha256_of

ROOT = Path(__file__).parents[1]
CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "test/weights.pth"


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /weights.pth; the first `cuts` answers end after `piece` bytes."""

    cuts, piece, knows_ranges = 0, 1_000_000, True
    busy = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path.startswith("/endless"):
            self._send_without_end()
            return
        if self.path != "/weights.pth":
            self.send_error(404)
            return
        if self.server.busy:
            self.server.busy -= 1
            self.send_error(503)
            return
        start = int(re.findall(r"\d+", asked)[0]) if asked and self.server.knows_ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT)
        if self.server.cuts:
            self.server.cuts -= 1
            end = min(start + self.server.piece, end)
        self.wfile.write(CONTENT[start:end])

    def _send_without_end(self) -> None:
        self.send_response(200)
        if self.path == "/endless-announced":
            self.send_header("Content-Length", str(2**50))
        if self.path == "/endless-nonsense":
            self.send_header("Content-Length", "many")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(CONTENT)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def everything_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class TestFetch:
    def test_whole(self, server: Server, tmp_path: Path) -> None:
        seen: list[tuple[int, int | None]] = []
        target = tmp_path / "a" / "weights.pth"
        fetch(
            f"{server.address}/weights.pth",
            target,
            sha256=SHA256,
            on_progress=lambda *done: seen.append(done),
        )
        assert target.read_bytes() == CONTENT
        assert everything_in(tmp_path) == ["a/weights.pth"]
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def test_a_cut_connection_is_taken_up_where_it_ended(self, server: Server, tmp_path: Path) -> None:
        server.cuts = 2
        target = tmp_path / "weights.pth"
        fetch(f"{server.address}/weights.pth", target, sha256=SHA256[:8], pause=0.01)
        assert target.read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=1000000-", "bytes=2000000-"]

    def test_what_has_come_is_kept_for_the_next_command(self, server: Server, tmp_path: Path) -> None:
        server.cuts = 1
        target = tmp_path / "weights.pth"
        with pytest.raises(
            DownloadError, match=r"ended after 1,000,000 of 3,000,000 bytes; 1,000,000 .* kept"
        ):
            fetch(f"{server.address}/weights.pth", target, sha256=SHA256, attempts=1)
        assert everything_in(tmp_path) == ["weights.pth.partial"]
        fetch(f"{server.address}/weights.pth", target, sha256=SHA256)
        assert server.ranges == [None, "bytes=1000000-"]
        assert target.read_bytes() == CONTENT

    @pytest.mark.parametrize("piece", [b"of another file", CONTENT, CONTENT + b"more"])
    def test_any_old_piece_ends_well(self, server: Server, tmp_path: Path, piece: bytes) -> None:
        target = tmp_path / "weights.pth"
        target.with_name("weights.pth.partial").write_bytes(piece)
        fetch(f"{server.address}/weights.pth", target, sha256=SHA256, pause=0.01)
        assert target.read_bytes() == CONTENT

    def test_a_server_without_ranges(self, server: Server, tmp_path: Path) -> None:
        server.cuts, server.knows_ranges = 1, False
        target = tmp_path / "weights.pth"
        fetch(f"{server.address}/weights.pth", target, sha256=SHA256, pause=0.01)
        assert target.read_bytes() == CONTENT

    def test_a_busy_server_is_asked_again(self, server: Server, tmp_path: Path) -> None:
        server.busy = 2
        fetch(f"{server.address}/weights.pth", tmp_path / "weights.pth", sha256=SHA256, pause=0.01)
        assert len(server.ranges) == 3

    def test_a_wrong_hash_leaves_nothing(self, server: Server, tmp_path: Path) -> None:
        target = tmp_path / "weights.pth"
        target.write_bytes(b"the old file")
        with pytest.raises(
            WrongFileError, match=rf"expected sha256 0000.* of .*, got {SHA256}; nothing .* kept"
        ):
            fetch(f"{server.address}/weights.pth", target, sha256="0" * 64)
        assert everything_in(tmp_path) == ["weights.pth"]
        assert target.read_bytes() == b"the old file"

    def test_not_found_is_not_asked_twice(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"nothing\.pth: the server answered 404 Not Found"):
            fetch(f"{server.address}/nothing.pth", tmp_path / "weights.pth", sha256=SHA256)
        assert len(server.ranges) == 1
        assert everything_in(tmp_path) == []

    @pytest.mark.parametrize("path", ["endless", "endless-announced", "endless-nonsense"])
    def test_a_download_without_end_is_cut_and_nothing_is_kept(
        self, server: Server, tmp_path: Path, path: str
    ) -> None:
        with pytest.raises(
            DownloadError, match=r"(bytes, expected at most|more than the expected) 20,000,000"
        ):
            fetch(f"{server.address}/{path}", tmp_path / "w.pth", sha256=SHA256, max_bytes=20_000_000)
        assert everything_in(tmp_path) == []
        assert len(server.ranges) == 1  # another attempt would be the same

    def test_a_device_is_cut_too(self, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"more than the expected 5,000,000 bytes"):
            fetch("file:///dev/zero", tmp_path / "w.pth", sha256=SHA256, max_bytes=5_000_000)
        assert everything_in(tmp_path) == []

    def test_an_old_piece_longer_than_the_limit_is_dropped(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "weights.pth.partial").write_bytes(CONTENT[:2_000_000])
        with pytest.raises(DownloadError, match=r"3,000,000 bytes, expected at most 1,000,000"):
            fetch(
                f"{server.address}/weights.pth", tmp_path / "weights.pth", sha256=SHA256, max_bytes=1_000_000
            )
        assert everything_in(tmp_path) == []
        fetch(f"{server.address}/weights.pth", tmp_path / "weights.pth", sha256=SHA256, max_bytes=3_000_000)
        assert (tmp_path / "weights.pth").read_bytes() == CONTENT

    def test_no_server(self, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match="refused"):
            fetch("http://127.0.0.1:1/weights.pth", tmp_path / "weights.pth", sha256=SHA256)
        assert everything_in(tmp_path) == []


def test_addresses_and_names() -> None:
    assert is_address("https://example.org/a.pth")
    assert not is_address("/home/me/a.pth")
    assert not is_address("C:/a.pth")
    assert file_name("/home/me/a.pth") == "a.pth"


class TestCommand:
    @pytest.fixture
    def known(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> known_weights.Published:
        asset = known_weights.Published(
            groups=("test",), addresses=(f"{server.address}/weights.pth",), sha256=SHA256, megabytes=3
        )
        monkeypatch.setitem(pretrained.PUBLISHED, NAME, asset)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub-cache"))
        return asset

    def run(self, *arguments: str) -> int:
        try:
            weights.main(arguments)
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        return 0

    def test_one_entry_is_one_subcommand(
        self, known: known_weights.Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run("test", "--root", str(tmp_path)) == 0
        assert (
            capsys.readouterr().out
            == f"{tmp_path}/{NAME}: 3.0 MB from {known.addresses[0]}, sha256 checked\n"
        )
        assert self.run("test", "--root", str(tmp_path)) == 0
        assert "exists, sha256 checked" in capsys.readouterr().out

    def test_a_damaged_file_in_place_is_replaced(
        self, known: known_weights.Published, tmp_path: Path
    ) -> None:
        (tmp_path / "test").mkdir()
        (tmp_path / NAME).write_bytes(CONTENT[:-1])
        assert self.run("test", "--root", str(tmp_path)) == 0
        assert sha256_of(tmp_path / NAME) == SHA256

    def test_a_file_at_hand(
        self,
        known: known_weights.Published,
        server: Server,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "mine.bin").write_bytes(CONTENT)
        assert self.run("test", "--root", str(tmp_path / "to"), "--from", str(tmp_path / "mine.bin")) == 0
        assert (tmp_path / "to" / NAME).read_bytes() == CONTENT
        assert server.ranges == []
        (tmp_path / "mine.bin").write_bytes(CONTENT[1:])
        assert self.run("test", "--root", str(tmp_path / "two"), "--from", str(tmp_path / "mine.bin")) == 2
        assert f"expected sha256 {SHA256} of {tmp_path}/mine.bin" in capsys.readouterr().err
        assert not (tmp_path / "two").exists()
        assert self.run("test", "--root", str(tmp_path / "two"), "--from", "/no/such/file") == 2
        assert (
            "expected a file or an address, got /no/such/file, which does not exist"
            in capsys.readouterr().err
        )

    def test_another_address(
        self, known: known_weights.Published, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            pretrained.PUBLISHED,
            NAME,
            known_weights.Published(
                groups=("test",), addresses=("http://127.0.0.1:1/x.pth",), sha256=SHA256, megabytes=3
            ),
        )
        assert self.run("test", "--root", str(tmp_path), "--from", f"{server.address}/weights.pth") == 0
        assert (tmp_path / NAME).read_bytes() == CONTENT

    def test_what_torch_hub_has_is_not_brought_again(
        self, known: known_weights.Published, server: Server, tmp_path: Path
    ) -> None:
        cache = tmp_path / "hub-cache" / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        (cache / "weights.pth").write_bytes(CONTENT)
        assert self.run("test", "--root", str(tmp_path / "to")) == 0
        assert (tmp_path / "to" / NAME).read_bytes() == CONTENT
        assert server.ranges == []

    def test_a_file_whose_publisher_states_no_sha256(
        self,
        known: known_weights.Published,
        server: Server,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setitem(
            pretrained.PUBLISHED,
            NAME,
            known_weights.Published(groups=("test",), addresses=known.addresses, sha256="", megabytes=3),
        )
        cache = tmp_path / "hub-cache" / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        (cache / "weights.pth").write_bytes(
            b"a file of the same name"
        )  # it may be any file, and is not taken
        for origin in (f"3.0 MB from {known.addresses[0]}", "exists"):
            assert self.run("test", "--root", str(tmp_path)) == 0
            unchecked = f"no sha256 is published to compare with; it is {SHA256}"
            assert capsys.readouterr().out == f"{tmp_path}/{NAME}: {origin}, {unchecked}\n"

    def test_the_other_missing_files_of_a_group_are_named(
        self,
        server: Server,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name in ("a", "b", "c"):
            published = known_weights.Published(
                groups=("test",), addresses=(f"{server.address}/gone/{name}",), sha256="", megabytes=3
            )
            monkeypatch.setitem(pretrained.PUBLISHED, f"test/{name}.pth", published)
        (tmp_path / "test").mkdir()
        (tmp_path / "test" / "c.pth").touch()
        assert self.run("test", "--root", str(tmp_path)) == 2
        first, *_, last = capsys.readouterr().err.splitlines()
        assert f"{server.address}/gone/a" in first
        assert last.endswith(
            f"'test/b.pth' was not tried either; put {server.address}/gone/b at {tmp_path}/test/b.pth"
        )

    def test_the_second_publisher_helps_out(
        self, known: known_weights.Published, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        addresses = (f"{server.address}/gone.pth", f"{server.address}/weights.pth")
        monkeypatch.setitem(
            pretrained.PUBLISHED,
            NAME,
            known_weights.Published(groups=("test",), addresses=addresses, sha256=SHA256, megabytes=3),
        )
        assert self.run("test", "--root", str(tmp_path)) == 0
        assert (tmp_path / NAME).read_bytes() == CONTENT

    def test_one_of_a_group(
        self, known: known_weights.Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.bin").write_bytes(b"")
        assert self.run("torchvision", "--root", str(tmp_path), "--from", str(tmp_path / "mine.bin")) == 2
        assert re.search(
            "the group has 4; expected a file called one of alexnet.*got 'mine.bin'", capsys.readouterr().err
        )
        assert self.run("torchvision", "--root", str(tmp_path), "--only", "vgg11.pth") == 2
        assert re.search("--only: expected some of alexnet.*, got vgg11.pth", capsys.readouterr().err)

    def test_without_a_network_it_says_what_to_put_where(self, tmp_path: Path) -> None:
        """The real command and the real address, through a proxy that is not there."""
        done = subprocess.run(
            [sys.executable, "tools/prepare_checkpoints.py", "pytorch_fid", "--root", str(tmp_path)],
            cwd=ROOT,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "https_proxy": "http://127.0.0.1:1",
                "HTTPS_PROXY": "http://127.0.0.1:1",
                "no_proxy": "",
                "TORCH_HOME": str(tmp_path / "hub"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        for words in (
            "pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            f"put it at {tmp_path}/inception/pt_inception-2015-12-05-6726825d.pth",
            "`vq weights inception --from FILE`",
        ):
            assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert everything_in(tmp_path) == []


def test_a_missing_published_file_names_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
    with pytest.raises(pretrained.MissingWeightsError, match=r"run `vq weights inception`.*96 MB"):
        pretrained.path("inception/pt_inception-2015-12-05-6726825d.pth")
