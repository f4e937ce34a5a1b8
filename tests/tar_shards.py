"""Tars of small images, and a web server for them."""

import io
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

UNEVEN = (5, 17, 3, 11)
"""Images in each of four shards."""


def png(number: int, size: int = 16) -> bytes:
    """An image whose first channel is its own number, so that pixels tell which image they are of."""
    rows = np.broadcast_to(np.arange(size, dtype=np.uint8), (size, size))
    content = io.BytesIO()
    Image.fromarray(np.stack([np.full_like(rows, number), rows, rows.T], axis=-1)).save(content, "PNG")
    return content.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """Writes members in the given order; a sequence may have a name twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def write_shards(folder: Path, sizes: Sequence[int] = UNEVEN, first: int = 0) -> list[Path]:
    """Writes shards whose images are numbered in order; the class of an image is its number modulo 3."""
    paths, number = [], first
    for shard, size in enumerate(sizes):
        members: dict[str, bytes] = {}
        for position in range(size):
            members |= {
                f"{position:04d}.png": png(number),
                f"{position:04d}.cls": str(number % 3).encode(),
                f"{position:04d}.txt": f"number {number}".encode(),
            }
            number += 1
        paths.append(write_tar(folder / f"{shard:03d}.tar", members))
    return paths


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files, and ranges of them if `has_ranges`; fails as often as `server.failures` says."""

    has_ranges = True
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))  # type: ignore[attr-defined]
        if self.server.failures > 0:  # type: ignore[attr-defined]
            self.server.failures -= 1  # type: ignore[attr-defined]
            self.close_connection = True  # without an answer
            return
        path = Path(self.translate_path(self.path))
        if not (self.has_ranges and "Range" in self.headers and path.is_file()):
            super().do_GET()
            return
        content = path.read_bytes()
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(content)) + 1, len(content))
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


class NoRangeHandler(RangeHandler):
    """Serves whole files only."""

    has_ranges = False


@contextmanager
def served(
    folder: Path, handler: type[RangeHandler] = RangeHandler
) -> Iterator[tuple[str, ThreadingHTTPServer]]:
    """Serves a folder on this machine, and yields its address and the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    server.requests, server.failures = [], 0  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
