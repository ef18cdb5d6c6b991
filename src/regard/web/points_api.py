"""The one address that writes: the points of a file, for which the viewer was started (``--notes``, ``--label``)."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from regard.web.point_file import Change, PointFile, Refused

PATH = "/points.json"
LARGEST = 16_384  # bytes of a change
NOT_CACHED = {"cache-control": "no-store"}

router = APIRouter()


def refusal(headers: Headers, token: str) -> int:
    """The status with which a POST is refused, before a byte of it is read; 0 for one that is taken.

    A page of another site can send neither the header with the token nor JSON without asking first, which is refused.
    """
    if not secrets.compare_digest(headers.get("x-regard-token", "").encode(), token.encode()):
        return 403
    if headers.get("origin") != f"http://{headers.get('host')}":
        return 403
    if headers.get("content-type") != "application/json":
        return 415
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not length.isascii() or not length.isdigit() or int(length) > LARGEST:
        return 413
    return 0 if headers.get("if-match") else 428


def _file(request: Request) -> PointFile:
    file: PointFile | None = request.app.state.viewer.points
    if file is None:
        raise HTTPException(404)
    return file


@router.get(PATH)
def points(request: Request) -> Response:
    """All points, and the version that a change must name."""
    return JSONResponse(_file(request).points(), headers=NOT_CACHED)


@router.post(PATH)
async def change(request: Request) -> Response:
    """Make one change; it is on disk when this is answered."""
    file, body = _file(request), await request.body()
    try:
        wanted = Change.model_validate_json(body)
    except (ValidationError, RecursionError):
        raise Refused(422, "that change does not fit the file. Reload the page.") from None
    made = await run_in_threadpool(file.change, wanted, request.headers["if-match"].strip('"'))
    return JSONResponse(made, headers=NOT_CACHED)


def refused(request: Request, error: Any) -> Response:
    """The reason, with its status."""
    return JSONResponse({"error": str(error)}, error.status, headers=NOT_CACHED)
