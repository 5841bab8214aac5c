"""A model hub on this machine: what a download needs of the Hugging Face hub's HTTP interface, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """One model with the commits ``COMMIT`` (branch "main") and ``OLD_COMMIT`` (tag "v1").

    ``refusal``: status and X-Error-Code of every answer; ``gated``: files are refused, the list of them is not.
    ``cuts``: how often the connection still breaks in the middle of a file.
    """

    repository: str
    files: dict[str, bytes]
    url: str = ""
    refusal: tuple[int, str] | None = None
    gated: bool = False
    cuts: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    @property
    def downloaded(self) -> list[str]:
        """The names of the files that were asked for."""
        marker = "/resolve/"
        return sorted(
            request.path.partition(marker)[2].partition("/")[2]
            for request in self.requests
            if request.method == "GET" and marker in request.path
        )

    def ranges(self, name: str) -> list[str | None]:
        """The Range headers of the requests for a file."""
        return [
            request.range for request in self.requests if request.method == "GET" and request.path.endswith(f"/{name}")
        ]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at ``hub.url``, on a free port of this machine."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path)
        hub.requests.append(Request(self.command, path, self.headers["Range"], self.headers["Authorization"]))
        if hub.refusal:
            return self._refuse(*hub.refusal)
        api, files = f"/api/models/{hub.repository}", f"/{hub.repository}/resolve/"
        if path == api or path.startswith(f"{api}/"):
            what, _, revision = path.removeprefix(api).lstrip("/").partition("/")
            return self._describe(what, revision or "main")
        if path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            return self._send_file(revision, name)
        return self._refuse(404, "RepoNotFound")

    def _describe(self, what: str, revision: str) -> None:
        commit = _commit(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        files = self.served.files
        if what == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in files.items()
            ]
            return self._send_json(entries)
        name = self.served.repository
        siblings = [{"rfilename": name} for name in files]
        return self._send_json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})

    def _send_file(self, revision: str, name: str) -> None:
        commit, data = _commit(revision), self.served.files.get(name)
        if self.served.gated:
            return self._refuse(403, "GatedRepo")
        if commit is None or data is None:
            return self._refuse(404, "RevisionNotFound" if commit is None else "EntryNotFound")
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self.headers["Range"] else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.served.cuts.get(name, 0) > 0:
            self.served.cuts[name] -= 1
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
            return None
        self.wfile.write(data[start:])
        return None

    def _send_json(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _commit(revision: str) -> str | None:
    return {"main": COMMIT, COMMIT: COMMIT, "v1": OLD_COMMIT, OLD_COMMIT: OLD_COMMIT}.get(revision)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
