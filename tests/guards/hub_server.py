"""A Hugging Face hub in one process, as far as guards need it: repositories that `huggingface_hub` pushes and pulls."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0" * 39 + "1"


class _Hub(BaseHTTPRequestHandler):
    root: Path  # of the repositories
    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            said = json.loads(body)
            self.created.append(said)
            name = f"{said['organization']}/{said['name']}" if said.get("organization") else said["name"]
            (self.root / name).mkdir(parents=True, exist_ok=True)
            self._json({"url": f"{self._address}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in path:
            repository = self.root / path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    target = repository / entry["value"]["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(entry["value"]["content"]))
            url = f"{self._address}/{repository.relative_to(self.root)}/commit/{COMMIT}"
            self._json({"commitOid": COMMIT, "commitUrl": url})
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").partition("/revision/")[0].partition("/tree/")[0]
            repository = self.root / name
            if not repository.is_dir():
                self._missing()
                return
            files = [p.relative_to(repository).as_posix() for p in sorted(repository.rglob("*")) if p.is_file()]
            if "/tree/" in path:
                sizes = {file: (repository / file).stat().st_size for file in files}
                self._json([{"type": "file", "path": f, "size": sizes[f], "oid": "0" * 40} for f in files])
                return
            self._json(
                {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files], "private": True,
                 "tags": [], "downloads": 0, "likes": 0, "disabled": False, "gated": False}
            )  # fmt: skip
            return
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        file = self.root / name / rest.partition("/")[2]
        if not file.is_file():
            self._missing()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _missing(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a hub whose repositories lie under `root`, and what was asked for when they were made."""
    created: list[dict[str, Any]] = []
    handler = type("Hub", (_Hub,), {"root": root, "created": created})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", created
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
