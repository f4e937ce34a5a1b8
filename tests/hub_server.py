"""A server on this machine that answers for one data set as the Hugging Face hub does."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "user/numbers"


class HubHandler(BaseHTTPRequestHandler):
    """Serves the files in `server.folder` as the data set `user/numbers`; other sets do not exist."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if re.fullmatch(f"/api/datasets/{NAME}(/revision/[^/]+)?", path):
            names = [{"rfilename": name} for name in self._names()]
            self._json({"id": NAME, "sha": COMMIT, "private": False, "gated": False, "siblings": names})
        elif found := re.fullmatch(f"/api/datasets/{NAME}/tree/[^/]+/?(.*)", path):
            recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() in ("true", "1")
            self._tree(self.server.folder / found[1], recursive)  # type: ignore[attr-defined]
        elif found := re.fullmatch(f"/datasets/{NAME}/resolve/[^/]+/(.*)", path):
            self._file(self.server.folder / found[1])  # type: ignore[attr-defined]
        else:
            self._missing("RepoNotFound")

    def _names(self) -> list[str]:
        folder = self.server.folder  # type: ignore[attr-defined]
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def _tree(self, folder: Path, recursive: bool) -> None:
        if not folder.is_dir():
            self._missing("EntryNotFound")
            return
        found = sorted(folder.rglob("*") if recursive else folder.iterdir())
        self._json([self._entry(path) for path in found])

    def _entry(self, path: Path) -> dict[str, object]:
        kind = "file" if path.is_file() else "directory"
        size = path.stat().st_size if kind == "file" else 0
        name = str(path.relative_to(self.server.folder))  # type: ignore[attr-defined]
        return {"type": kind, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": size, "path": name}

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._missing("EntryNotFound")
            return
        content = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        status, wanted = 200, self.headers.get("Range")
        if wanted and self.command == "GET":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(content)) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status, content = 206, content[start:stop]
        self.server.requests.append((self.command, path.name, len(content)))  # type: ignore[attr-defined]
        self._send(status, content, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[tuple[str, str, int]]]]:
    """Serves a folder as a data set; yields the address of the hub, and the requests for files (name, bytes)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.folder, server.requests = folder, []  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.requests  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
