"""Run the viewer until the user ends it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
import threading
import webbrowser
from collections import Counter
from contextlib import closing, suppress
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from regard.errors import ConfigError
from regard.web.app import create_app
from regard.web.guard import Guard
from regard.web.scene_view import SceneView

REQUEST_TIMEOUT = 10.0  # seconds that a request may take to arrive
ANSWER_TIMEOUT = 60.0  # seconds that a client may take to read what was sent to it
MOST_CONNECTIONS = 128
LONGEST_HEADER = 16_384
EVERYWHERE = (
    "Every machine of the network can connect, unencrypted: who has the address sees the scene, and writes where you "
    "do. From another machine: {url}\n"
)


class TimeoutProtocol(H11Protocol):
    """Disconnects clients that finish no request or read no answer.

    Beyond ``MOST_CONNECTIONS``, of the address with the most silent ones the one that is silent longest: a flood from
    elsewhere pushes out itself, not the owner.
    """

    request_timeout, answer_timeout = REQUEST_TIMEOUT, ANSWER_TIMEOUT
    _awaited: float | None = None  # the seconds of the timer that runs
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(high=0)  # writing pauses until all is sent
        super().connection_made(transport)
        self.began = self.loop.time()
        self._watch()
        if len(self.connections) > MOST_CONNECTIONS:
            others: list[Any] = [*self.connections]
            silent = [each for each in others if each.conn.their_state is h11.IDLE]
            crowd = Counter(map(_address, silent)).most_common(1)[0][0]
            oldest = min((each for each in silent if _address(each) == crowd), key=lambda each: each.began)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._set(None)

    def _watch(self) -> None:
        """Wait no longer than allowed for the rest of a request, or until the answer is read; no byte buys time."""
        unread, unfinished = self.flow.write_paused, self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        self._set(self.answer_timeout if unread else self.request_timeout if unfinished else None)

    def _set(self, seconds: float | None) -> None:
        if seconds == self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
        self._awaited = seconds


def _address(connection: Any) -> str | None:
    """The machine at the other end."""
    return connection.client[0] if connection.client else None


class Server(uvicorn.Server):
    """A server that tells the model to stop before it waits for its last answers."""

    guard: Guard

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.guard.app.state.stopping = True
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 is any free one.

    Raises:
        ConfigError: the port is taken, or the host is not this machine.
    """
    try:
        if not host:
            raise OSError("an empty host is every address of this machine: say 0.0.0.0 if you mean that")
        if not 0 <= port < 2**16:
            raise OSError("ports go from 0 to 65535")
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}, port {port} ({error}). Omit --port for a free one.") from None


def server_of(viewer: SceneView, token: str, *, host: str = "127.0.0.1") -> Server:
    """The server of a viewer."""
    guard = create_app(viewer, token, frozenset({host}))
    config = uvicorn.Config(
        guard, http=TimeoutProtocol, ws="none", lifespan="off", interface="asgi3", log_config=None, log_level="error",
        access_log=False, server_header=False, proxy_headers=False, backlog=MOST_CONNECTIONS, timeout_keep_alive=5,
        timeout_graceful_shutdown=3, h11_max_incomplete_event_size=LONGEST_HEADER,
    )  # fmt: skip
    server = Server(config)
    server.guard = guard
    return server


def own_address() -> str:
    """The address by which other machines of the network reach this one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line, suppress(OSError):
        line.connect(("192.0.2.1", 9))  # of the net that documents use: it leads out by the usual way
        return line.getsockname()[0]
    return socket.gethostname()


def _url(host: str, port: int, token: str) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{token}/"


def serve(viewer: SceneView, *, host: str = "127.0.0.1", port: int = 0, browser: bool = True) -> str:
    """Show the viewer until Ctrl-C; its address.

    Raises:
        ConfigError: see :func:`listen`.
    """
    token = secrets.token_urlsafe(16)
    with listen(host, port) as listener:
        port, everywhere = listener.getsockname()[1], host in ("0.0.0.0", "::")
        url = _url(("127.0.0.1" if host == "0.0.0.0" else "::1") if everywhere else host, port, token)
        shared = EVERYWHERE.format(url=_url(own_address(), port, token)) if everywhere else ""
        print(f"Viewer: {url}\n{shared}{viewer.hint.format(url=url)}Stop with Ctrl-C.", file=sys.stderr, flush=True)
        server = server_of(viewer, token, host=host)
        if browser:
            threading.Timer(0.5, webbrowser.open, [url]).start()
        with suppress(KeyboardInterrupt), closing(viewer):
            server.run(sockets=[listener])
    return url
