"""The real server on a socket: bad bytes, slow and many clients, and its end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from regard.errors import ConfigError
from regard.web import serve
from regard.web.serve import Server, TimeoutProtocol, listen, server_of
from regard.web.viewer import Viewer
from web_support import TOKEN

Place = tuple[str, int]


@pytest.fixture
def running(plain: Viewer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(serve.TimeoutProtocol, "request_timeout", 0.6)
    server, ear = server_of(plain, TOKEN), listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]})
    thread.start()
    yield ear.getsockname()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
    ear.close()


def exchange(place: Place, data: bytes, *, seconds: float = 5) -> bytes:
    """What the server says before it hangs up."""
    with socket.create_connection(place, timeout=seconds) as line:
        line.sendall(data)
        answer = b""
        while part := line.recv(65536):
            answer += part
            if answer.startswith(b"HTTP/1.1") and b"\r\n\r\n" in answer:
                break
    return answer


def lives(place: Place) -> bool:
    answer = exchange(place, f"GET /{TOKEN}/about.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return answer.startswith(b"HTTP/1.1 200")


BAD = {
    "garbage": b"\x00\xff\x13garbage\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(60) + b"\r\n\r\n",
    "traversal in the raw": f"GET /{TOKEN}/static/../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "whole address": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "smuggling": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "made-up method": f"BREW /{TOKEN}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "two hosts": f"GET /{TOKEN}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n".encode(),
    "web socket": f"GET /{TOKEN}/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
    "body that never comes": f"GET /{TOKEN}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n".encode(),
}


def test_bad_bytes_are_refused_and_the_server_lives(running: Place) -> None:
    for kind, data in BAD.items():
        try:
            answer = exchange(running, data)
        except ConnectionError:
            answer = b""
        assert not answer or answer.split(b" ")[1][:1] == b"4", (kind, answer[:200])
        assert b"root:" not in answer and b"Traceback" not in answer
    assert lives(running)


def test_who_dawdles_is_hung_up_on(running: Place) -> None:
    lines = [socket.create_connection(running, timeout=5) for _ in range(20)]
    began = time.monotonic()
    for number, line in enumerate(lines):
        line.sendall(b"GET / HTTP/1.1\r\nHost: 127" if number % 2 else b"")
    assert lives(running)
    time.sleep(0.3)
    lines[1].sendall(b".0")  # another byte buys no time
    for line in lines:
        with suppress(ConnectionError):
            assert line.recv(1) == b""
        line.close()
    assert 0.4 < time.monotonic() - began < 30
    assert lives(running)


def test_a_kept_line_is_answered_again_and_then_closed(running: Place) -> None:
    request = f"GET /{TOKEN}/about.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with socket.create_connection(running, timeout=5) as line:
        for _ in range(3):
            line.sendall(request)
            head = b""
            while not head.endswith(b"}") and (part := line.recv(65536)):
                head += part
            assert json.loads(head.split(b"\r\n\r\n", 1)[1])["scene"] == "plain.tif"
            time.sleep(0.3)
        line.sendall(b"GET /")
        assert line.recv(10) == b""


def test_the_end_stops_the_model_first(plain: Viewer) -> None:
    server: Server = server_of(plain, TOKEN)
    server.handle_exit(2, None)
    assert server.guard.app.state.stopping and server.should_exit


def test_a_port_that_is_taken_or_impossible_is_refused() -> None:
    with listen("127.0.0.1", 0) as ear, pytest.raises(ConfigError, match=r"cannot listen at 127\.0\.0\.1, port"):
        listen("127.0.0.1", ear.getsockname()[1])
    with pytest.raises(ConfigError, match="port 65536"):
        listen("127.0.0.1", 65_536)


def test_beyond_the_most_connections_the_longest_silent_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_CONNECTIONS", 2)
    transports = [Mock(**{"get_extra_info.return_value": None}) for _ in range(3)]

    async def connect() -> None:
        config, state = uvicorn.Config(Mock(), log_config=None, ws="none", lifespan="off"), ServerState()
        config.load()
        for transport in transports:
            TimeoutProtocol(config, state, {}, asyncio.get_running_loop()).connection_made(transport)
            await asyncio.sleep(0.01)

    asyncio.run(connect())
    assert [transport.abort.called for transport in transports] == [True, False, False]


def test_a_crowd_of_one_address_pushes_out_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_CONNECTIONS", 3)
    ends = {"owner": "192.168.0.2", "first": "192.168.0.9", "second": "192.168.0.9", "third": "192.168.0.9"}
    transports = {
        name: Mock(**{"get_extra_info.side_effect": {"peername": (address, 1)}.get}) for name, address in ends.items()
    }

    async def connect() -> None:
        config, state = uvicorn.Config(Mock(), log_config=None, ws="none", lifespan="off"), ServerState()
        config.load()
        for transport in transports.values():
            TimeoutProtocol(config, state, {}, asyncio.get_running_loop()).connection_made(transport)
            await asyncio.sleep(0.01)

    asyncio.run(connect())
    assert [name for name, transport in transports.items() if transport.abort.called] == ["first"]


def test_a_flood_without_the_token_does_not_block_the_owner(running: Place) -> None:
    """Threads ask, and open lines in silence, as fast as they can; each request of the owner is answered meanwhile."""
    over, asked = threading.Event(), []

    def flood() -> None:
        lines: list[socket.socket] = []
        while not over.is_set():
            with suppress(OSError):
                asked.append(exchange(running, b"GET /wrong/about.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")[:12])
                lines.append(socket.create_connection(running, timeout=5, source_address=("127.0.0.2", 0)))
        for line in lines:
            line.close()

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert all(lives(running) for _ in range(30))
    finally:
        over.set()
        for thread in threads:
            thread.join(10)
    assert set(asked) <= {b"HTTP/1.1 404", b""} and len(asked) > 30


@pytest.mark.parametrize(("host", "shared"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_to_listen_everywhere_is_said_in_words(
    plain: Viewer, host: str, shared: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "run", lambda self, sockets: None)
    serve.serve(plain, host=host, browser=False)
    said = capsys.readouterr().err
    assert said.startswith("Viewer: http://127.0.0.1:")
    assert ("Every machine of the network can connect, unencrypted" in said) == shared
    assert (f"From another machine: http://{serve.own_address()}:" in said) == shared
