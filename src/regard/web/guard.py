"""What stands before the web application: who may ask at all, and the headers of every answer."""

from __future__ import annotations

import ipaddress
import secrets

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from regard.web import points_api

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
MOST_REQUESTS = 64  # answered at the same time
MAX_URL = 2048  # bytes of a path with its query


class Guard:
    """Refuses foreign host names (DNS rebinding), cross-site requests, a wrong token, and requests with a body."""

    def __init__(self, app: FastAPI, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts, self.running = app, token, hosts, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = self._refusal(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if status:  # a body may follow: it is not read
            return await Response(status_code=status, headers={"connection": "close"})(
                scope, receive, send_with_headers
            )
        path: str = scope["path"].removeprefix(f"/{self.token}")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves out the body
        self.running += 1
        try:
            inner = {**scope, "path": path, "raw_path": path.encode(), "method": method}
            await self.app(inner, receive, send_with_headers)
        finally:
            self.running -= 1

    def _refusal(self, scope: Scope) -> int:
        headers = Headers(scope=scope)
        given, slash, _ = scope["path"].removeprefix("/").partition("/")
        if not self._is_ours(headers.get("host", "")):
            return 421
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return 403
        if not slash or not secrets.compare_digest(given.encode(), self.token.encode()):
            return 404
        asked = scope["method"], scope["path"].removeprefix(f"/{self.token}")
        writes = asked == ("POST", points_api.PATH) and self.app.state.viewer.points is not None
        if scope["method"] not in ("GET", "HEAD") and not writes:
            return 405
        if len(scope["path"]) + len(scope["query_string"]) > MAX_URL:
            return 414
        if writes and (status := points_api.refusal(headers, self.token)):
            return status
        if not writes and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers):
            return 413
        return 503 if self.running >= MOST_REQUESTS else 0

    def _is_ours(self, host: str) -> bool:
        """Whether the host is localhost, an IP address or a given name; a rebound DNS name is none of them."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name == "localhost" or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True
