"""The pages and tiles of the viewer over HTTP, for this machine alone.

Everything lies below a token that only the printed address holds, and only requests to the loopback
address are answered: a page from elsewhere, open in the same browser, can neither guess the one nor
pass for the other (DNS rebinding). What can be read is what was given when the server was made.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..common.names import readable
from ..errors import CellsegError, UsageError
from .corrections import Corrections, to_geojson
from .scene import Scene
from .style import Style, span
from .tiles import TILE, Painter, zooms

#: Names under which requests are answered.
HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")
PAGE = Path(__file__).parent / "page"
#: The page loads nothing from elsewhere, and nobody may frame it. OpenSeadragon sets styles of its own.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"  # noqa: E501
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Tiles of a style never change while the server runs.
KEEP = {"Cache-Control": "private, max-age=3600"}
#: Bars of the histogram of scores.
BARS = 50
#: Characters of a message at most: addresses may be as long as their sender likes.
LONGEST_ERROR = 250
#: Bytes of corrections at most.
LARGEST_BODY = 8 << 20


def application(scenes: Sequence[Scene], token: str) -> Starlette:
    """Return the server's application.

    Parameters
    ----------
    scenes
        Results to show; they stay open as long as it runs.
    token
        The first part of every address; see :func:`new_token`.
    """
    viewer = _Viewer(scenes)
    register_url_convertor("short", _Short())
    scene = f"/{token}/scene/{{number:short}}"
    tile = "{zoom:short}/{column:short}_{row:short}"
    routes = [
        Route(f"/{token}/", viewer.page),
        Route(f"/{token}/page/{{name}}", viewer.page),
        Route(f"/{token}/scenes.json", viewer.scenes),
        Route(f"{scene}/picture/{tile}.jpg", viewer.picture),
        Route(f"{scene}/cells/{tile}.png", viewer.cells),
        Route(f"{scene}/plane/{{head}}/{tile}.png", viewer.plane),
        Route(f"{scene}/summary.json", viewer.summary),
        Route(f"{scene}/cell.json", viewer.cell),
        Route(f"{scene}/uncertain.json", viewer.uncertain),
        Route(f"{scene}/corrections.geojson", viewer.corrections, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)],
        exception_handlers={CellsegError: _refuse, HTTPException: _http},
    )


class _Short(Convertor[int]):
    """Whole numbers of up to nine digits; Python refuses to read those of thousands."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(18)


class _Viewer:
    """The answers; starlette calls plain functions in threads of its own."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._scenes = scenes
        self._painter = Painter()

    def _scene(self, request: Request) -> Scene:
        number = int(request.path_params["number"])
        if number >= len(self._scenes):
            raise UsageError(f"there is no result {number}")
        return self._scenes[number]

    def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        files = {path.name: path for path in PAGE.iterdir()}
        if name not in files:
            raise HTTPException(404)
        return FileResponse(files[name], headers=HEADERS | {"Cache-Control": "no-cache"})

    def scenes(self, _: Request) -> Response:
        return _json([describe(scene) for scene in self._scenes])

    def picture(self, request: Request) -> Response:
        return _image(self._painter.picture(self._scene(request), *_tile(request)), "image/jpeg")

    def cells(self, request: Request) -> Response:
        style = Style.parse(request.query_params)
        return _image(self._painter.cells(self._scene(request), *_tile(request), style), "image/png")

    def plane(self, request: Request) -> Response:
        head = request.path_params["head"]
        return _image(self._painter.plane(self._scene(request), head, *_tile(request)), "image/png")

    def summary(self, request: Request) -> Response:
        scene, style = self._scene(request), Style.parse(request.query_params)
        shown = style.shown(scene)
        scores = np.histogram(np.nan_to_num(scene.column("score")), bins=BARS, range=(0, 1))[0]
        scale = None
        if style.by and scene.column(style.by).dtype.kind in "biuf":
            scale = span(scene.column(style.by))
        return _json(
            {"shown": int(shown.sum()), "count": scene.count, "scores": scores.tolist(), "scale": scale}
        )

    def cell(self, request: Request) -> Response:
        scene = self._scene(request)
        label = request.query_params.get("label")
        if label is None:
            x, y = (int(_number(request, name)) for name in "xy")
            if not (0 <= x < scene.width and 0 <= y < scene.height):
                return _json(None)
            number = int(scene.labels_at(y, x, 1, 1)[0, 0])
        else:
            number = int(_number(request, "label"))
        return _json(scene.row(number) if number else None)

    def uncertain(self, request: Request) -> Response:
        """Answer with the cell at a place in the order of certainty, the least certain first."""
        scene, style = self._scene(request), Style.parse(request.query_params)
        rank = int(_number(request, "rank"))
        rows = np.flatnonzero(style.shown(scene))
        if not len(rows):
            return _json(None)
        order = rows[np.argsort(scene.column("score")[rows], kind="stable")]
        rank %= len(order)
        row = scene.row(int(scene.column("label")[order[rank]]))
        return _json({"rank": rank, "of": len(order), "cell": row})

    async def corrections(self, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                raise HTTPException(413)
        try:
            given = Corrections.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the corrections"
            raise UsageError(f"{where}: {first['msg']}") from None
        scene = self._scene(request)
        text = await run_in_threadpool(to_geojson, scene, given)
        name = f"{Path(scene.name).stem}.{given.field[0]}_{given.field[1]}.geojson"
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
        headers = HEADERS | {"Content-Disposition": f'attachment; filename="{safe}"'}
        return Response(text, media_type="application/geo+json", headers=headers)


def describe(scene: Scene) -> dict[str, Any]:
    """Return what the page must know about a result, as plain values."""
    return {
        "name": scene.name,
        "folder": scene.folder.name,
        "height": scene.height,
        "width": scene.width,
        "tile": TILE,
        "zooms": zooms(scene.height, scene.width),
        "pixel_size": scene.pixel_size,
        "count": scene.count,
        "columns": list(scene.column_names),
        "areas": [float(v) for v in span(scene.column("area"))] if scene.count else [0.0, 1.0],
        "min_score": scene.min_score,
        "planes": sorted(scene.planes),
        "missing": scene.missing,
        "model": scene.model,
        "notes": list(scene.notes),
    }


def _tile(request: Request) -> tuple[int, int, int]:
    given = request.path_params
    return int(given["zoom"]), int(given["column"]), int(given["row"])


def _number(request: Request, name: str) -> float:
    text = request.query_params.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 2**53:
        raise UsageError(f"{name} is {text[:40]!r}; wanted a number")
    return value


def _image(data: bytes | None, kind: str) -> Response:
    if data is None:
        raise HTTPException(404)
    return Response(data, media_type=kind, headers=HEADERS | KEEP)


def _json(value: Any) -> Response:
    return JSONResponse(_plain(value), headers=HEADERS | {"Cache-Control": "no-store"})


def _plain(value: Any) -> Any:
    """Return the value with nothing that JSON does not have: numbers that are none, names of odd bytes."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _refuse(_: Request, error: Exception) -> Response:
    status = 400 if isinstance(error, UsageError) else 500
    text = readable(" ".join(str(error).split()))
    text = text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"
    return JSONResponse({"error": text}, status, headers=HEADERS)


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(status_code=error.status_code, headers=HEADERS)
