"""A server on this machine that answers for repositories of models as the Hugging Face hub does, uploads included."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class ModelHub(ThreadingHTTPServer):
    """Holds repositories in memory.

    Attributes:
        files: Repository -> commit -> file name -> bytes; the last commit is `main`.
        closed: Repositories for which the server answers 401.
        cuts: How many of the next file transfers end after half of the bytes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.closed: set[str] = set()
        self.cuts = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repository: str, revision: str) -> str | None:
        commits = self.files[repository]
        return (
            next(reversed(commits), None) if revision == "main" else revision if revision in commits else None
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([^/]+))?", path):
            if self._is_there(found[1], found[2] or "main"):
                commit = self.server.commit_of(found[1], found[2] or "main")
                self._json({"id": found[1], "sha": commit, "siblings": []})
        else:
            self._refuse(404, "RepoNotFound")

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if self.headers.get("Authorization") != "Bearer hf_token":
            self._refuse(401, None)
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(part for part in (wanted.get("organization") or "user", wanted["name"]))
            self.server.files.setdefault(name, {})
            self._json({"url": f"{self.server.address}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json(
                {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            )
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines() if line.strip()])
        else:
            self._refuse(404, "RepoNotFound")

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _commit(self, repository: str, lines: list[dict[str, dict[str, str]]]) -> None:
        commits = self.server.files[repository]
        files = dict(commits[next(reversed(commits))]) if commits else {}
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        commits[oid] = files
        self._json({"commitOid": oid, "commitUrl": f"{self.server.address}/{repository}/commit/{oid}"})

    def _is_there(self, repository: str, revision: str) -> bool:
        if repository in self.server.closed:
            self._refuse(401, "GatedRepo" if repository.endswith("gated") else None)
        elif repository not in self.server.files:
            self._refuse(404, "RepoNotFound")
        elif self.server.commit_of(repository, revision) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _file(self, repository: str, revision: str, name: str) -> None:
        if not self._is_there(repository, revision):
            return
        commit = self.server.commit_of(repository, revision)
        assert commit is not None
        content = self.server.files[repository][commit].get(name)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        is_cut = self.command == "GET" and self.server.cuts > 0
        sent = content[start : start + (len(content) - start) // 2] if is_cut else content[start:]
        self._send(206 if wanted else 200, sent, headers, length=len(content) - start)
        if is_cut:
            self.server.cuts -= 1
            self.close_connection = True

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str | None) -> None:
        self._send(status, b"{}", {} if code is None else {"X-Error-Code": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length or len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[ModelHub]:
    """Runs a server without repositories."""
    server = ModelHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
