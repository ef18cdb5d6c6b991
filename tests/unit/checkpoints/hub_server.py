"""A stand-in for the Hugging Face Hub on loopback: the part of its HTTP interface that downloads and commits use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Files = dict[tuple[str, str], bytes]  # (repository, path) to content


class Hub(BaseHTTPRequestHandler):
    files: Files
    uploads: dict[str, bytes]
    requests: list[str]

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            return self._json({"id": self.path, "sha": COMMIT, "siblings": []})
        if self.path.startswith("/api/"):
            return self._reply(404, b"", {})
        self._resolve(body=True)

    def _resolve(self, *, body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        user, name, _, revision, *path = unquote(self.path.split("?")[0]).strip("/").split("/")
        content = self.files.get((f"{user}/{name}", "/".join(path)))
        if content is None or revision not in ("main", COMMIT):
            known = {key[0] for key in self.files}
            code = "EntryNotFound" if f"{user}/{name}" in known else "RepoNotFound"
            return self._reply(404, b"", {"X-Error-Code": code, "X-Error-Message": "not found"})
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._reply(200, content, headers, body=body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append(f"POST {self.path}")
        base = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.requests.append(f"create {name} {'private' if is_private(asked) else 'public'}")
            return self._json({"url": f"{base}/{name}", "name": name})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            answer = [{"path": f["path"], "uploadMode": modes[f["size"] > 5000], "shouldIgnore": False} for f in files]
            return self._json({"files": answer})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**found, "actions": {"upload": {"href": f"{base}/upload/{found['oid']}", "header": {}}}}
                for found in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            return self._commit(body.decode(), base)
        return self._json({})

    def _commit(self, body: str, base: str) -> None:
        repository = "/".join(self.path.split("/")[3:5])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[repository, value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[repository, value["path"]] = self.uploads[value["oid"]]
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"{base}/{repository}/commit/{COMMIT}"})

    def do_PUT(self) -> None:
        self.uploads[self.path.split("/")[-1]] = b"".join(self._pieces())
        self._reply(200, b"", {})

    def _pieces(self) -> Iterator[bytes]:
        if "Content-Length" in self.headers:
            yield self.rfile.read(int(self.headers["Content-Length"]))
            return
        while size := int(self.rfile.readline(), 16):  # chunked
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _json(self, value: object) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def is_private(asked: dict[str, object]) -> bool:
    """As older and newer clients say it."""
    return bool(asked.get("private")) or asked.get("visibility") == "private"


@contextmanager
def serve(files: Files) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that holds ``files``, and the requests that it has had."""
    requests: list[str] = []
    handler = type("Handler", (Hub,), {"files": files, "uploads": {}, "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
