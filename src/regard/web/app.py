"""The web application: tiles, legend and pixel inspection behind a token. It takes no paths; see points_api."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from anyio import from_thread
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from jaxtyping import Bool

from regard.errors import ConfigError, RegardError
from regard.web import points_api
from regard.web.grid import FINEST, Address
from regard.web.guard import Guard
from regard.web.labelling import Labelling
from regard.web.live_prediction import Busy, Connected, Disconnected
from regard.web.point_file import Refused
from regard.web.raster_layer import Changed
from regard.web.scene_view import SceneView

if TYPE_CHECKING:
    from regard.web.viewer import Viewer
else:
    Viewer = Any  # needs PyTorch

CHIP = 288  # pixels of a picture around a point
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
STATIC = resources.files("regard.web") / "static"
FILES = {item.name: item.read_bytes() for item in STATIC.iterdir() if item.name.rsplit(".")[-1] in KINDS}
CACHED = {"cache-control": "private, max-age=86400"}  # the token is new at every start, and so are the addresses
NOT_CACHED = {"cache-control": "no-store"}
POINTS = r"^-?\d{1,9}(\.\d{1,6})?,-?\d{1,9}(\.\d{1,6})?(;-?\d{1,9}(\.\d{1,6})?,-?\d{1,9}(\.\d{1,6})?)*$"

router = APIRouter()
Zoom = Annotated[int, Path(ge=0, le=FINEST)]
Cell = Annotated[int, Path(ge=0, lt=2**FINEST)]


def _viewer(request: Request) -> SceneView:
    return request.app.state.viewer


def _predicting(request: Request) -> Viewer:
    """The viewer, if it shows a model's answers: who labels points gets none."""
    viewer = _viewer(request)
    if not viewer.predicts:
        raise HTTPException(404)
    return cast("Viewer", viewer)


def _labelling(request: Request) -> Labelling:
    viewer = _viewer(request)
    if not isinstance(viewer, Labelling):
        raise HTTPException(404)
    return viewer


def _address(request: Request, z: Zoom, x: Cell, y: Cell) -> Address:
    grid = _viewer(request).grid
    if max(x, y) >= 2**z or (grid.kind == "pixels" and z > grid.finest):
        raise HTTPException(404)
    return Address(z, x, y)


def _own_address(request: Request, z: Zoom, x: Cell, y: Cell) -> Address:
    """A tile of the scene's own pixels, which the page shows."""
    if max(x, y) >= 2**z or z > _viewer(request).pixels.finest:
        raise HTTPException(404)
    return Address(z, x, y)


def _bands(request: Request, bands: Annotated[str | None, Query(max_length=32)] = None) -> tuple[int, ...] | None:
    """Three bands of the scene's file."""
    if bands is None:
        return None
    found = re.fullmatch(r"(\d{1,5}),(\d{1,5}),(\d{1,5})", bands)
    if not found or not all(1 <= int(band) <= len(_viewer(request).raster.file_bands) for band in found.groups()):
        raise HTTPException(422)
    return tuple(map(int, found.groups()))


def _shown(request: Request, show: Annotated[str | None, Query(max_length=1024)] = None) -> Bool[np.ndarray, " k"]:
    count = len(_viewer(request).classes)
    if show is not None and (len(show) != count or set(show) - set("01")):
        raise HTTPException(422)
    return np.array([show is None or show[k] == "1" for k in range(count)])


def _connected(request: Request) -> Connected:
    """Whether the client is still connected and the server is not stopping."""
    return lambda: not (request.app.state.stopping or from_thread.run(request.is_disconnected))


ViewerOf = Annotated[SceneView, Depends(_viewer)]
Predicting = Annotated[Viewer, Depends(_predicting)]
LabellingOf = Annotated[Labelling, Depends(_labelling)]
Tile = Annotated[Address, Depends(_address)]
OwnTile = Annotated[Address, Depends(_own_address)]
Bands = Annotated[Any, Depends(_bands)]
Cut = Annotated[float | None, Query(ge=0, le=40)]
Shown = Annotated[Any, Depends(_shown)]
IsConnected = Annotated[Any, Depends(_connected)]
Side = Annotated[float, Query(allow_inf_nan=False, ge=1, le=1e7)]
Number = Annotated[float, Query(allow_inf_nan=False, ge=-1e8, le=1e8)]


@router.get("/")
def page() -> Response:
    """The page."""
    return static("index.html")


@router.get("/static/{name}")
def static(name: str) -> Response:
    """A file of the page, out of a fixed list."""
    if name not in FILES:
        raise HTTPException(404)
    return Response(FILES[name], media_type=KINDS[name.rsplit(".", 1)[1]], headers=CACHED)


@router.get("/about.json")
def about(viewer: ViewerOf) -> Response:
    """Facts of scene, map and model for the page."""
    return JSONResponse(viewer.about(), headers=NOT_CACHED)


@router.get("/{name}/{z}/{x}/{y}.png")
def picture(viewer: Predicting, name: str, tile: Tile, shown: Shown, connected: IsConnected) -> Response:
    """A tile of the scene, the prediction, its confidence, the labels or the errors, in web mercator: for QGIS."""
    if name not in viewer.names:
        raise HTTPException(404)
    rough = name == "scene" and viewer.layers["scene"].is_rough(viewer.grid.step(tile.z))
    content = viewer.picture(name, tile, shown, connected)
    return Response(content, media_type="image/png", headers=NOT_CACHED if rough else CACHED)


@router.get("/pixels/scene/{z}/{x}/{y}.png")
def scene(viewer: ViewerOf, tile: OwnTile, bands: Bands, cut: Cut = None) -> Response:
    """A tile of the scene in its own pixels."""
    viewer.check_unchanged()
    rough = viewer.imagery(bands or viewer.bands).is_rough(viewer.pixels.step(tile.z))
    content = viewer.scene(tile, viewer.pixels, bands, cut)
    return Response(content, media_type="image/png", headers=NOT_CACHED if rough else CACHED)


@router.get("/around.png")
def around(viewer: LabellingOf, x: Number, y: Number, side: Side, bands: Bands, cut: Cut = None) -> Response:
    """The scene around a place, ``side`` of its pixels wide."""
    viewer.check_unchanged()
    content = viewer.around((x - side / 2, y - side / 2, x + side / 2, y + side / 2), CHIP, bands, cut)
    rough = viewer.imagery(bands or viewer.bands).is_rough(side / CHIP)
    return Response(content, media_type="image/png", headers=NOT_CACHED if rough else CACHED)


@router.get("/cards.json")
def cards(viewer: LabellingOf) -> Response:
    """The points in the order in which they are labelled, each with the outline of what its label is of."""
    return JSONResponse(viewer.cards, headers=NOT_CACHED)


@router.get("/pixels/{name}/{z}/{x}/{y}")
def values(viewer: Predicting, name: str, tile: OwnTile, connected: IsConnected) -> Response:
    """A tile of classes and confidences in the scene's own pixels, for the page to colour."""
    if name not in viewer.tiles_of_values:
        raise HTTPException(404)
    headers = {**CACHED, "content-encoding": "deflate"}
    return Response(viewer.values(name, tile, connected), media_type="application/octet-stream", headers=headers)


@router.get("/pixel.json")
def pixel(viewer: Predicting, x: Number, y: Number, connected: IsConnected) -> Response:
    """Class probabilities and band values of a pixel, by column and row."""
    return JSONResponse(viewer.inspect(x, y, connected), headers=NOT_CACHED)


@router.get("/attention.json")
def attention(viewer: Predicting, x: Number, y: Number, connected: IsConnected) -> Response:
    """Attention maps of a pixel."""
    return JSONResponse(viewer.inspect(x, y, connected, why=True), headers=NOT_CACHED)


@router.get("/place.json")
def place(viewer: ViewerOf, longitude: Number, latitude: Number) -> Response:
    """The column and row of a place on Earth; null where the scene does not reach."""
    found = viewer.place.pixels(longitude, latitude) if viewer.place.crs else None
    return JSONResponse({"pixel": found}, headers=NOT_CACHED)


@router.get("/measure.json")
def measure(viewer: ViewerOf, points: Annotated[str, Query(max_length=1800, pattern=POINTS)]) -> Response:
    """Length and area of a line of points, as columns and rows; and the degrees of each."""
    if viewer.place.crs is None:
        raise HTTPException(404)
    along = np.array([pair.split(",") for pair in points.split(";")], float)
    found = {**viewer.place.measure(along), "degrees": viewer.place.degrees(along).tolist()}
    if not np.isfinite(found["metres"]):
        raise ConfigError("a point has no place on Earth. Measure within the scene.")
    return JSONResponse(found, headers=NOT_CACHED)


def _refused(request: Request, error: Exception) -> Response:
    """Messages of our own errors, 409 for a changed file; 429 for a busy model."""
    if isinstance(error, RegardError):
        return JSONResponse({"error": str(error)}, 409 if isinstance(error, Changed) else 422, headers=NOT_CACHED)
    message = "The model is busy: too many requests. Try again in a moment."
    return JSONResponse({"error": message}, 429, headers=NOT_CACHED)


def create_app(viewer: SceneView, token: str, hosts: frozenset[str] = frozenset()) -> Guard:
    """The application. Every address begins with the token; ``hosts`` are further host names that it accepts."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.viewer, app.state.stopping = viewer, False
    app.include_router(router)
    app.include_router(points_api.router)
    app.add_exception_handler(Refused, points_api.refused)
    for kind in (RegardError, Busy, Disconnected):
        app.add_exception_handler(kind, _refused)
    return Guard(app, token, hosts)
