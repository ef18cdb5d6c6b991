"""`regard view` in a process of its own, attacked through its socket: refused, alive, memory bounded."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from regard.checkpoints.file import save
from support import tiny, write_tif
from web_support import picture

PATIENCE = 1.0  # seconds, in place of the 10 and 60 that a user's clients have
START = f"""
from regard.web.serve import TimeoutProtocol
TimeoutProtocol.request_timeout = TimeoutProtocol.answer_timeout = {PATIENCE}
from regard.cli import main
main(["view", "model.safetensors", "scene.tif", "--labels", "labels.tif", "--no-browser"])
"""
MB = 2**20


class Attacked(NamedTuple):
    """The server, where it is, and what it has written to the terminal since it began."""

    process: psutil.Process
    place: tuple[str, int]
    token: str
    folder: Path
    written: list[str]

    def line(self, request: str = "", *, receives: int = 0) -> socket.socket:
        """A connection on which a request, or its beginning, was sent; ``receives`` bounds what arrives unread."""
        line = socket.socket()
        line.settimeout(20)
        if receives:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        line.connect(self.place)
        line.sendall(request.encode())
        return line

    def answer(self, path: str, *headers: str, method: str = "GET", host: str = "127.0.0.1") -> bytes:
        """All that it answers to one request."""
        lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers)
        with self.line("\r\n".join(lines) + "\r\n\r\n") as line:
            return b"".join(iter(lambda: line.recv(65536), b""))

    def status(self, path: str = "about.json", *headers: str, method: str = "GET", host: str = "127.0.0.1") -> int:
        return int(self.answer(f"/{self.token}/{path}", *headers, method=method, host=host).split(b" ")[1])

    def memory(self) -> float:
        return self.process.memory_info().rss / MB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    save(tiny(), folder / "model.safetensors")
    write_tif(folder / "scene.tif", picture((300, 400)), crs=None, transform=None)
    write_tif(folder / "labels.tif", picture((300, 400))[:1] % 3, crs=None, transform=None)
    written: list[str] = []
    with subprocess.Popen([sys.executable, "-c", START], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: written.extend(process.stderr), daemon=True)
        reader.start()
        while not (written and written[-1].startswith("Stop with")):
            assert process.poll() is None, written
            time.sleep(0.05)
        found = re.search(r"http://127\.0\.0\.1:(\d+)/([^/]+)/\n", "".join(written))
        assert found, written
        written.clear()
        yield Attacked(psutil.Process(process.pid), ("127.0.0.1", int(found[1])), found[2], folder, written)
        process.terminate()
        reader.join(20)


@pytest.fixture(autouse=True)
def lives_as_before(server: Attacked) -> Iterator[None]:
    """After each attack it answers, holds no connection, has not grown by much and has written nothing."""
    server.status("prediction/1/0/0.png")
    before = server.memory()
    yield
    assert server.status() == 200
    deadline = time.monotonic() + 20
    while lines := [line for line in server.process.net_connections() if line.status == "ESTABLISHED"]:
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)
    assert server.memory() < before + 100
    assert server.written == []


def closed_within(lines: list[socket.socket], seconds: float) -> bool:
    """Whether the server hangs up on all of them, who send a byte now and then."""
    deadline, left = time.monotonic() + seconds, list(lines)
    while left and time.monotonic() < deadline:
        time.sleep(PATIENCE / 4)
        for line in list(left):
            try:
                line.sendall(b"x")
            except OSError:
                left.remove(line)
    return not left


SLOW = {
    "header": "GET / HTTP/1.1\r\nX: ",
    "body": "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n",
    "chunked body": "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_request_that_comes_byte_by_byte_is_cut_off(server: Attacked, kind: str) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(server.line(SLOW[kind])) for _ in range(40)]
        assert closed_within(lines, 10 * PATIENCE)


def test_a_body_in_bytes_with_the_token_is_cut_off_too(server: Attacked) -> None:
    request = f"POST /{server.token}/pixel.json HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n"
    with server.line(request) as line:
        assert closed_within([line], 10 * PATIENCE)


def test_who_does_not_read_the_answers_is_cut_off(server: Attacked) -> None:
    request = f"GET /{server.token}/static/ol.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 40
    with ExitStack() as stack:
        lines = [stack.enter_context(server.line(request, receives=2048)) for _ in range(20)]
        assert closed_within(lines, 15 * PATIENCE)


def test_silent_connections_do_not_keep_others_out(server: Attacked) -> None:
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(server.line())
        assert server.status() == 200
        assert len(server.process.net_connections()) < 150


async def _tile(server: Attacked, number: int) -> str:
    path = f"/{server.token}/{('scene', 'prediction', 'labels', 'errors')[number % 4]}/1/{number % 2}/{number % 3}.png"
    try:
        reader, writer = await asyncio.open_connection(*server.place)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    except OSError:
        return "refused"
    return answer[9:12].decode() or "refused"


def test_a_thousand_tiles_at_once(server: Attacked) -> None:
    async def ask() -> list[str]:
        return await asyncio.gather(*(_tile(server, number) for number in range(1000)))

    counts = Counter(asyncio.run(ask()))
    assert counts["200"] > 0 and set(counts) <= {"200", "404", "429", "503", "refused"}, counts


def test_a_huge_body_is_not_taken(server: Attacked) -> None:
    sent = 0
    with server.line(SLOW["body"]) as line, pytest.raises(OSError):
        while sent < 1000:
            line.sendall(bytes(MB))
            sent += 1
    assert sent < 100


FOREIGN = (
    "evil.example", "127.0.0.1.evil.example", "evil.example:80", "127.0.0.1@evil.example", "localhost.evil.example",
    "localhost.", "127.0.0.1:80:evil", "[::1", "[evil]", "0x7f.1", "127.1", "", "127.0.0.1, evil.example",
)  # fmt: skip


def test_a_rebound_name_is_refused_even_with_the_token(server: Attacked) -> None:
    for host in FOREIGN:
        assert server.status(host=host) in (400, 421), host
    for header in ("X-Forwarded-Host: 127.0.0.1", "Forwarded: host=127.0.0.1", "X-Forwarded-For: 127.0.0.1"):
        assert server.status("about.json", header, host="evil.example") == 421, header


def test_headers_that_proxies_obey_open_nothing(server: Attacked) -> None:
    hidden = f"/{server.token}/about.json"
    for header in (f"X-Original-URL: {hidden}", f"X-Rewrite-URL: {hidden}", f"Referer: {hidden}", f"Cookie: {hidden}"):
        assert server.answer("/", header).startswith(b"HTTP/1.1 404"), header
    for header in ("X-HTTP-Method-Override: DELETE", "Upgrade: h2c\r\nConnection: Upgrade", "Range: bytes=0-0,-1"):
        assert server.status("about.json", header) == 200, header


def test_endless_headers_are_cut_off(server: Attacked) -> None:
    with server.line("GET / HTTP/1.1\r\n") as line, pytest.raises(OSError):
        for number in range(200_000):
            line.sendall(f"X{number}: {'a' * 70}\r\n".encode())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_no_other_site_writes(server: Attacked, method: str) -> None:
    origin, body = "Origin: http://evil.example", "Content-Type: text/plain\r\nContent-Length: 0"
    answer = server.answer(f"/{server.token}/pixel.json?x=1&y=1", origin, body, method=method)
    assert answer.split(b" ")[1] in (b"400", b"405") and b"access-control" not in answer.lower()


def test_no_other_site_or_port_embeds_a_tile(server: Attacked) -> None:
    for site in ("cross-site", "same-site"):
        assert server.status("scene/1/0/0.png", f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors") == 403


def test_a_guessed_token_learns_nothing(server: Attacked) -> None:
    near = [server.token[:-length] for length in range(1, len(server.token))] + [server.token + "A", server.token[::-1]]
    answers = {
        re.sub(rb"date: .*\r\n", b"", server.answer(f"/{guess}/{path}"))
        for guess in near
        for path in ("about.json", "nothing")
    }
    assert len(answers) == 1 and answers.pop().startswith(b"HTTP/1.1 404")


def test_a_link_in_place_of_the_labels_is_not_followed(server: Attacked) -> None:
    labels, kept = server.folder / "labels.tif", server.folder / "kept.tif"
    other = write_tif(server.folder / "secret.tif", picture((300, 400), seed=7)[:1] % 3, crs=None, transform=None)
    shutil.copystat(labels, other)
    os.utime(other, ns=(0, 0))
    labels.rename(kept)
    for target in (other, Path("/etc/passwd"), Path("/dev/zero"), server.folder / "nothing"):
        labels.symlink_to(target)
        for path in (
            "labels/1/0/0.png",
            "errors/1/0/1.png",
            "pixels/labels/1/0/0",
            "pixels/scene/1/0/0.png",
            "pixel.json?x=1&y=1",
        ):
            answer = server.answer(f"/{server.token}/{path}")
            assert answer.startswith(b"HTTP/1.1 409") and b"labels.tif has changed since it was opened" in answer, (
                target,
                path,
            )
        labels.unlink()
    kept.rename(labels)
    assert server.status("labels/1/0/0.png") == 200
