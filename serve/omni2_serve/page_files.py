"""The page at `/`: files as they are, which may reach for nothing but this server."""

from __future__ import annotations

import mimetypes
from os import PathLike, stat_result
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "page"
HEADERS = {
    "Cache-Control": "no-cache",  # asked for anew each time: modules of two versions do not fit one another
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageFiles(StaticFiles):
    """The folder `page`."""

    def __init__(self) -> None:
        mimetypes.add_type("text/javascript", ".js")  # Windows' registry may say otherwise
        super().__init__(directory=FOLDER, html=True)

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, with what a browser must know of it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response
