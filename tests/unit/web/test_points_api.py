"""The one address that writes: who may, and that what was answered is on disk, whatever ends the server."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyogrio
import pyogrio.raw
import pytest
from starlette.testclient import TestClient

from regard.web.raster_layer import Sources
from regard.web.viewer import Viewer
from support import tiny, write_tif
from web_support import TILING, TOKEN, client_of, picture

ORIGIN = "http://127.0.0.1"
NOTE = {"do": "add", "x": 5.5, "y": 7.5, "values": {"text": "here"}}
KILLED = """
import sys
from pathlib import Path
from rasterio.crs import CRS
from rasterio.transform import Affine
from regard.web.point_file import Change, PointFile
file = PointFile.notes(Path(sys.argv[1]), CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0))
version = file.points()["version"]
for number in range(200):
    change = Change(do="add", x=1.0, y=1.0, values={"text": str(number)})
    version = file.change(change, version)["version"]
    print(number, flush=True)
"""


@pytest.fixture
def noting(tmp_path: Path) -> Iterator[Viewer]:
    scene = write_tif(tmp_path / "s.tif", picture((60, 90)))
    with closing(Viewer(tiny(), Sources(scene), TILING, notes=tmp_path / "notes.gpkg")) as viewer:
        yield viewer


@pytest.fixture
def client(noting: Viewer) -> TestClient:
    return client_of(noting)


def post(client: TestClient, change: Any = NOTE, **headers: str | None) -> Any:
    """A change as the page sends it, but for these headers."""
    version = client.get("/points.json").json()["version"]
    usual = {"x-regard-token": TOKEN, "origin": ORIGIN, "content-type": "application/json", "if-match": version}
    sent = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    body = change if isinstance(change, bytes) else json.dumps(change).encode()
    return client.post("/points.json", content=body, headers={k: v for k, v in sent.items() if v is not None})


def texts(client: TestClient) -> list[str]:
    return [point["text"] for point in client.get("/points.json").json()["points"]]


def test_a_note_is_written_and_seen(client: TestClient) -> None:
    answer = post(client)
    assert answer.status_code == 200 and answer.json()["point"]["text"] == "here"
    assert answer.json()["version"] == client.get("/points.json").json()["version"]
    assert (answer.json()["point"]["x"], answer.json()["point"]["y"]) == (5.5, 7.5)


HEADERS: dict[str, tuple[dict[str, str | None], int]] = {
    "no token": ({"x_regard_token": None}, 403),
    "another token": ({"x_regard_token": TOKEN[:-1]}, 403),
    "no origin": ({"origin": None}, 403),
    "another site": ({"origin": "http://evil.example"}, 403),
    "another port": ({"origin": f"{ORIGIN}:8000"}, 403),
    "a sandboxed page": ({"origin": "null"}, 403),
    "the origin with a path": ({"origin": f"{ORIGIN}/"}, 403),
    "another scheme": ({"origin": "https://127.0.0.1"}, 403),
    "another host": ({"host": "evil.example", "origin": "http://evil.example"}, 421),
    "cross-site": ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"}, 403),
    "a form": ({"content_type": "application/x-www-form-urlencoded"}, 415),
    "plain text": ({"content_type": "text/plain"}, 415),
    "JSON in another alphabet": ({"content_type": "application/json; charset=utf-7"}, 415),
    "no version": ({"if_match": None}, 428),
    "an old version": ({"if_match": "0" * 32}, 412),
    "any version": ({"if_match": "*"}, 412),
}
BODIES: dict[str, tuple[Any, int]] = {
    "nothing": (b"", 422),
    "no JSON": (b"{", 422),
    "deep JSON": (b"[" * 9000, 422),
    "a list": ([NOTE], 422),
    "another verb": ({**NOTE, "do": "drop"}, 422),
    "one key more": ({**NOTE, "path": "/etc/passwd"}, 422),
    "NaN": (b'{"do": "add", "x": NaN, "y": 1}', 422),
    "infinity": (b'{"do": "add", "x": 1e999, "y": 1}', 422),
    "numbers as text": ({**NOTE, "x": "5"}, 422),
    "a column of the file": ({**NOTE, "values": {"fid": "1"}}, 422),
    "SQL for a column": ({**NOTE, "values": {'text" = 1; --': "x"}}, 422),
    "a value that is no text": ({**NOTE, "values": {"text": ["x"]}}, 422),
    "half a letter": (b'{"do": "add", "values": {"text": "\\ud800"}}', 422),
    "an escape sequence": ({**NOTE, "values": {"text": "\x1b]0;x\x07"}}, 422),
    "a long text": ({**NOTE, "values": {"text": "x" * 3000}}, 422),
    "a huge body": (b" " * 20_000, 413),
    "a note that is not there": ({"do": "delete", "fid": 9}, 422),
    "a number beyond all": ({"do": "delete", "fid": 10**30}, 422),
}


def test_hostile_requests_change_nothing(client: TestClient) -> None:
    post(client)
    for kind, (headers, status) in HEADERS.items():
        assert post(client, **headers).status_code == status, kind
    for kind, (body, status) in BODIES.items():
        answer = post(client, body)
        assert answer.status_code == status and "Traceback" not in answer.text, (kind, answer.text)
    assert texts(client) == ["here"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_no_other_method_writes(client: TestClient, method: str) -> None:
    assert (
        client.request(method, "/points.json", headers={"x-regard-token": TOKEN, "origin": ORIGIN}).status_code == 405
    )


def test_nothing_is_written_without_being_asked_for(plain: Viewer) -> None:
    client = client_of(plain)
    assert client.get("/points.json").status_code == 404
    assert client.post("/points.json", json=NOTE, headers={"x-regard-token": TOKEN}).status_code == 405


def test_head_answers_as_get_does(client: TestClient) -> None:
    for path in ("/", "/about.json", "/points.json", "/static/main.js"):
        assert client.head(path).status_code == 200, path


def test_a_file_that_another_took_the_name_of_is_not_written(client: TestClient, noting: Viewer) -> None:
    post(client)
    version = client.get("/points.json").json()["version"]
    noting.points.path.rename(noting.points.path.with_name("moved.gpkg"))
    headers = {"x-regard-token": TOKEN, "origin": ORIGIN, "if-match": version}
    answer = client.post("/points.json", json=NOTE, headers=headers)
    assert answer.status_code == 409 and not noting.points.path.exists()


@pytest.mark.parametrize("after", [3, 40])
def test_a_kill_loses_at_most_the_note_in_flight(tmp_path: Path, after: int) -> None:
    path = tmp_path / "notes.gpkg"
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.kill()
        answered = after + len(process.stdout.readlines())
    found = [int(text) for text in pyogrio.raw.read(path, columns=["text"], read_geometry=False)[3][0]]
    assert found in (list(range(answered)), list(range(answered + 1)))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_photograph_has_notes_in_pixels(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    scene = write_tif(tmp_path / "p.tif", picture((60, 90)), crs=None, transform=None)
    with closing(Viewer(tiny(), Sources(scene), TILING, notes=tmp_path / "n.gpkg")) as viewer:
        found = post(client_of(viewer)).json()["point"]
    assert (found["x"], found["y"]) == (5.5, 7.5)
    assert pyogrio.read_bounds(tmp_path / "n.gpkg")[1][:, 0].tolist() == [5.5, -7.5, 5.5, -7.5]
