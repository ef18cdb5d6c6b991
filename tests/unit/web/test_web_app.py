"""What the server gives to whom; and what it refuses."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from regard.web.guard import MOST_REQUESTS
from regard.web.live_prediction import Gate
from regard.web.viewer import Viewer
from web_support import TOKEN, client_of

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
TILE = "/prediction/1/0/0.png"


def test_page_tiles_shares_and_answers(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "<title>regard</title>" in page.text
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(f"/{name}").status_code == 200, name
    about = client.get("/about.json").json()
    assert about["place"] is None and about["layers"] == ["prediction", "confidence"] and about["finest"] == 1
    for layer in ("scene", "prediction", "confidence"):
        response = client.get(f"/{layer}/1/0/0.png")
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).size == (256, 256)
    hidden = np.asarray(Image.open(io.BytesIO(client.get(f"{TILE}?show=000").content)).convert("RGBA"))
    assert not hidden[..., 3].any()
    assert client.get("/attention.json?x=9&y=9").json()["overlays"]
    assert "does not reach there" in client.get("/pixel.json?x=900&y=9").json()["error"]


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(client: TestClient) -> None:
    page = client.get("/").text
    assert "//" not in re.sub(r"<!doctype html>", "", page)
    assert not re.search(r"<script>|\son\w+=|style=|javascript:", page)
    for name in ("main", "api", "colours", "inspect", "layers", "map", "page", "state", "tiles", "tools"):
        script = client.get(f"/static/{name}.js").text
        assert not re.search(r"https?:|innerHTML|eval\(|document\.write", script), name
    library = client.get("/static/ol.js").text
    assert not re.search(r"eval\(|new Function|importScripts|document\.write", library)


def test_every_answer_carries_the_policy_and_none_lets_other_sites_read(client: TestClient) -> None:
    for path in ("/", "/static/main.js", "/scene/1/0/0.png", "/about.json", "/nothing", f"{TILE}?show=x"):
        headers = client.get(path, headers={"origin": "http://evil.example"}).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")], path


HUGE = "9" * 400
REFUSED: dict[str, tuple[str, int]] = {
    "no such page": ("/nothing", 404),
    "traversal": ("/static/../../app.py", 404),
    "encoded traversal": ("/static/%2e%2e%2f%2e%2e%2fapp.py", 404),
    "twice encoded traversal": ("/static/%252e%252e%252fapp.py", 404),
    "backslash traversal": ("/static/..%5C..%5Capp.py", 404),
    "absolute path": ("/static//etc/passwd", 404),
    "encoded absolute path": ("/static/%2Fetc%2Fpasswd", 404),
    "null byte": ("/static/main.js%00.png", 404),
    "source code": ("/static/app.py", 404),
    "a path for the layer": ("/..%2F..%2Fetc/1/0/0.png", 404),
    "another layer": ("/labels_map/1/0/0.png", 404),
    "labels that are not there": ("/labels/1/0/0.png", 404),
    "errors that are not there": ("/errors/1/0/0.png", 404),
    "zoom too large": ("/scene/25/0/0.png", 422),
    "zoom beyond the picture": ("/scene/2/0/0.png", 404),
    "zoom of 400 digits": (f"/scene/{HUGE}/0/0.png", 422),
    "negative zoom": ("/scene/-1/0/0.png", 422),
    "column outside the zoom": ("/scene/1/2/0.png", 404),
    "negative row": ("/prediction/1/0/-1.png", 422),
    "column of 400 digits": (f"/prediction/1/{HUGE}/0.png", 422),
    "fraction": ("/scene/1/0.5/0.png", 422),
    "words for numbers": ("/scene/one/0/0.png", 422),
    "too few classes": (f"{TILE}?show=01", 422),
    "too many classes": (f"{TILE}?show={'1' * 900}", 422),
    "strange classes": (f"{TILE}?show=0%2F1", 422),
    "question without place": ("/pixel.json", 422),
    "question at NaN": ("/pixel.json?x=nan&y=1", 422),
    "question at infinity": ("/pixel.json?x=inf&y=-inf", 422),
    "question too far out": ("/pixel.json?x=1e300&y=1", 422),
    "pixel outside": ("/pixel.json?x=900&y=1", 422),
    "own tile beyond the picture": ("/pixels/scene/2/0/0.png", 404),
    "own tile outside the zoom": ("/pixels/prediction/1/2/0", 404),
    "a path for its own layer": ("/pixels/..%2F..%2Fetc/1/0/0", 404),
    "values of the scene": ("/pixels/scene/1/0/0", 404),
    "values of labels that are not there": ("/pixels/labels/1/0/0", 404),
    "band that is not there": ("/pixels/scene/1/0/0.png?bands=1,2,4", 422),
    "band zero": ("/pixels/scene/1/0/0.png?bands=0,1,2", 422),
    "too many bands": ("/pixels/scene/1/0/0.png?bands=1,2,3,1", 422),
    "stretch beyond all values": ("/pixels/scene/1/0/0.png?cut=50", 422),
    "stretch at NaN": ("/pixels/scene/1/0/0.png?cut=nan", 422),
    "measure in words": ("/measure.json?points=a,b", 422),
    "measure without a place": ("/measure.json?points=1,1;2,2", 404),
    "documentation of the interface": ("/openapi.json", 404),
    "long query": (f"/about.json?{'a' * 3000}", 414),
}


def test_hostile_addresses_are_refused(client: TestClient) -> None:
    for kind, (path, status) in REFUSED.items():
        response = client.get(path)
        assert response.status_code == status, (kind, response.text)
        assert not re.search("root:|Traceback|import", response.text), kind
    assert client.get("/about.json").status_code == 200


REQUESTS: dict[str, tuple[Callable[[TestClient], int], int]] = {
    "post": (lambda c: c.post("/pixel.json").status_code, 405),
    "put": (lambda c: c.put("/static/main.js", content=b"x").status_code, 405),
    "delete": (lambda c: c.delete(TILE).status_code, 405),
    "preflight": (lambda c: c.options(TILE, headers={"access-control-request-method": "GET"}).status_code, 405),
    "body": (lambda c: c.request("GET", "/about.json", content=b"x" * 10_000_000).status_code, 413),
    "chunked body": (lambda c: c.request("GET", "/about.json", content=iter([b"x"] * 9)).status_code, 413),
    "foreign host": (lambda c: c.get("/about.json", headers={"host": "evil.example"}).status_code, 421),
    "rebound host": (lambda c: c.get("/about.json", headers={"host": "127.0.0.1.evil.example:80"}).status_code, 421),
    "no host": (lambda c: c.get("/about.json", headers={"host": ""}).status_code, 421),
    "other site": (
        lambda c: c.get(TILE, headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code,
        403,
    ),
    "other port": (
        lambda c: c.get(TILE, headers={"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}).status_code,
        403,
    ),
}


def test_hostile_requests_are_refused(client: TestClient) -> None:
    for kind, (send, status) in REQUESTS.items():
        assert send(client) == status, kind
        assert client.get("/about.json").status_code == 200, kind


def test_a_link_from_another_site_opens_the_page(client: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200


def test_rough_tiles_of_the_scene_are_not_cached(plain: Viewer, client: TestClient) -> None:
    plain.layers["scene"].factor = 2
    for loaded in (False, True):
        (plain.layers["scene"].ready.set if loaded else plain.layers["scene"].ready.clear)()
        plain.layers["scene"].begun.set()
        cached = {zoom: client.get(f"/scene/{zoom}/0/0.png").headers["cache-control"] for zoom in (0, 1)}
        assert cached == {0: "private, max-age=86400" if loaded else "no-store", 1: "private, max-age=86400"}


def test_without_the_token_there_is_nothing(plain: Viewer) -> None:
    outside = TestClient(client_of(plain).app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    for token in ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 5, "%00", ".", "static"):
        for path in ("", "/", "/about.json", "/static/main.js", "/scene/1/0/0.png"):
            response = outside.get(f"/{token}{path}")
            assert response.status_code == 404 and not response.content, (token, path)
    assert outside.get(f"/{TOKEN}/about.json").status_code == 200


def test_its_own_names_are_answered(client: TestClient) -> None:
    for host in ("localhost:80", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000"):
        assert client.get("/about.json", headers={"host": host}).status_code == 200, host


def test_too_many_questions_are_put_off(plain: Viewer, client: TestClient) -> None:
    plain.live.gate = Gate(burst=2, per_second=0.001)
    codes = [client.get(f"/prediction/1/{x}/0.png").status_code for x in (0, 1)]
    refused = client.get("/pixel.json?x=5&y=5")
    assert codes == [200, 200] and refused.status_code == 429 and "model is busy" in refused.json()["error"]
    assert client.get(TILE).status_code == 200  # kept from before
    assert client.get("/scene/0/0/0.png").status_code == 200


def test_too_many_requests_at_the_same_time_are_refused(client: TestClient) -> None:
    client.app.running = MOST_REQUESTS
    assert client.get("/about.json").status_code == 503
    client.app.running = MOST_REQUESTS - 1
    assert client.get("/about.json").status_code == 200 and client.app.running == MOST_REQUESTS - 1
