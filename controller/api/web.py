"""/ and /dashboard/: the dashboard, from files of this package and nowhere else.

The page is static: what it shows comes from the same API that everybody has. Its policy forbids everything that is not
served here, inline code, frames, and turning text into markup, so that "nothing can inject" is kept by the browser and
not by hope. Depends on no store: the page loads, and says so, while the controller is still starting.
Never serves a path that is not in the table made from the folder.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from controller.api.routing import operations_router
from kvnet import __version__
from kvnet.errors import NotFound

FILES = Path(__file__).parent.parent / "web" / "dashboard"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
COMPRESSED_FROM = 1024
PRELOADS = "<!-- preloads -->"
# The worker that shares the stream is loaded by itself, and the graph only where one is shown.
NOT_PRELOADED = ("live/hub.js", "vendor/")
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types kvnet-hub",
    )
)
HEADERS = {
    # Asked again each time, and answered by a 304: a browser never mixes the files of two versions.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
FOR_PROGRAMS = f"""kvnet {__version__}

/            in a browser: the dashboard
/docs        the HTTP API, to read and to try; /openapi.json for programs
/livez /readyz /metrics

kvnet status     the same on the command line; kvnet --help lists everything
"""

router = operations_router()


@dataclass(frozen=True)
class File:
    """One file as it is sent; compressed once, when first asked for so."""

    content: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.content, 6, mtime=0)

    def answer(self, asked: Mapping[str, str], vary: str = "Accept-Encoding") -> Response:
        headers = {**HEADERS, "ETag": self.etag, "Vary": vary}
        if self.etag in _tags(asked.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        if len(self.content) < COMPRESSED_FROM or not _takes_gzip(asked.get("accept-encoding", "")):
            return Response(self.content, 200, headers, self.media_type)
        return Response(self.compressed, 200, {**headers, "Content-Encoding": "gzip"}, self.media_type)


@router.get("/", include_in_schema=False)
async def get_dashboard(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return page().answer(request.headers, "Accept, Accept-Encoding")
    headers = {"Vary": "Accept", "X-Content-Type-Options": "nosniff"}
    return Response(FOR_PROGRAMS, 200, headers, "text/plain; charset=utf-8")


@router.get("/dashboard", include_in_schema=False)
async def at_its_folder() -> Response:
    return RedirectResponse("./", headers={"Cache-Control": "no-cache"})  # relative: there may be a prefix


@router.get("/dashboard/", include_in_schema=False)
async def at_its_folder_too() -> Response:
    return RedirectResponse("../", headers={"Cache-Control": "no-cache"})


@router.get("/dashboard/{file:path}", include_in_schema=False)
async def get_file(request: Request, file: str) -> Response:
    found = files().get(file)
    if found is None:
        raise NotFound(f"the dashboard has no file {file[:80]!r}", fix="start at /")
    return found.answer(request.headers)


@cache
def files() -> Mapping[str, File]:
    """By their path below /dashboard/."""
    return {
        str(path.relative_to(FILES)): File(path.read_bytes(), TYPES[path.suffix])
        for path in sorted(FILES.rglob("*"))
        if path.suffix in TYPES and path.name != "index.html"
    }


@cache
def page() -> File:
    """With a hint for each module, so that they are fetched at once and not one behind the other."""
    preloads = "\n".join(
        f'<link rel="modulepreload" href="dashboard/{path}">'
        for path in files()
        if path.endswith(".js") and not path.startswith(NOT_PRELOADED)
    )
    text = (FILES / "index.html").read_text(encoding="utf-8")
    return File(text.replace(PRELOADS, preloads).encode(), TYPES[".html"] + "; charset=utf-8")


def _tags(if_none_match: str) -> list[str]:
    return [part.strip().removeprefix("W/") for part in if_none_match.split(",")]


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
