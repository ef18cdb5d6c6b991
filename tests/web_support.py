"""What the tests of the viewer share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from regard.options import Windows
from regard.web.app import create_app
from regard.web.serve import listen, server_of
from regard.web.viewer import Viewer

TOKEN = "correct-horse_battery"
TILING = Windows(tile=96, overlap=32)


def always() -> bool:
    """Whether the asker still waits."""
    return True


def picture(size: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Blocks of colour, so that the model's answer differs from place to place."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 256, size=(3, size[0] // 8 + 1, size[1] // 8 + 1), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]


def client_of(viewer: Viewer) -> TestClient:
    """Its addresses begin behind the token."""
    return TestClient(create_app(viewer, TOKEN), base_url=f"http://127.0.0.1/{TOKEN}", raise_server_exceptions=False)


@contextmanager
def serving(viewer: Viewer, **options: Any) -> Iterator[str]:
    """The address of a server of this process, until the block is left."""
    with listen("127.0.0.1", 0) as listener:
        server = server_of(viewer, TOKEN, **options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/"
        finally:
            server.should_exit = True
            thread.join(20)
