"""/docs and /openapi.json: the interactive documentation, from files of this package and nowhere else.

The page's content policy forbids everything that is not served here, so that "no request to the internet" is kept by
the browser and not by hope.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import FileResponse

from controller.api.answers import EventOut, Problem
from controller.api.bodies import SCHEMAS
from controller.api.described import complete
from controller.api.joining import CertificateIn, JoinIn
from controller.api.login import LoginIn
from controller.api.models import (
    AcceptIn,
    ConnectivityIn,
    EndpointIn,
    EndpointPatchIn,
    EndpointsIn,
    HoldIn,
    NameIn,
    NetworkIn,
    NetworkPatchIn,
    PoolIn,
    ReportIn,
    ReservationIn,
)
from controller.api.routing import operations_router
from controller.api.tokens import RotateIn, TokenIn
from controller.api.trace import PauseIn, TraceIn
from controller.api.whoami import AuthenticationIn
from controller.security.permissions import is_open
from kvnet.errors import NotFound

FILES = Path(__file__).parent.parent / "web" / "swagger"
SERVED = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
    "init.js": "text/javascript",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kvnet API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; <a href="/openapi.json">openapi.json</a> says the same without.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/init.js"></script>
</body>
</html>
"""
DESCRIPTION = """Container networks over many hosts, kept in a key-value store.

Errors are RFC 9457 problems: match on `code`, do what `fix` says. Objects carry a `version`, which is their ETag.
`docs/api.md` explains idempotency, paging, waiting and the event stream."""
TAGS = [
    {"name": "networks", "description": "What endpoints are on: subnets, a driver, a VNI."},
    {"name": "holds", "description": "Subnets that are kept for networks about to be made."},
    {"name": "endpoints", "description": "Interfaces of workloads, one or hundreds at a time."},
    {"name": "hosts", "description": "Machines, as their workers report them."},
    {"name": "pools", "description": "Where automatic subnets are cut from."},
    {"name": "reservations", "description": "Addresses that are never handed out."},
    {"name": "ipam", "description": "How full, who has it, is it consistent."},
    {"name": "tokens", "description": "Who may come in, and what for."},
    {"name": "joining", "description": "How hosts come by their credentials."},
    {"name": "audit", "description": "Whether the journal is as it was written, and all of it to take away."},
    {"name": "events", "description": "What changes, as a stream."},
    {"name": "operations", "description": "Health, metrics, versions."},
]
BODIES: tuple[type[BaseModel], ...] = (
    NetworkIn,
    NetworkPatchIn,
    NameIn,
    HoldIn,
    EndpointIn,
    EndpointPatchIn,
    EndpointsIn,
    PoolIn,
    ReservationIn,
    AcceptIn,
    ConnectivityIn,
    ReportIn,
    TraceIn,
    PauseIn,
    TokenIn,
    RotateIn,
    AuthenticationIn,
    JoinIn,
    CertificateIn,
    LoginIn,
)

router = operations_router()


@router.get("/docs", include_in_schema=False)
async def docs_page() -> Response:
    return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@router.get("/docs/{file}", include_in_schema=False)
async def docs_file(file: str) -> Response:
    if file not in SERVED:
        raise NotFound(f"there is no file {file[:80]!r}", fix="see /docs")
    return FileResponse(FILES / file, media_type=SERVED[file], headers={"Cache-Control": "max-age=3600"})


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
        )
        schemas = document["components"]["schemas"]
        schemas.update(_schemas(BODIES, "validation"))
        schemas.update(_schemas((Problem, EventOut), "serialization"))
        schemas["EndpointOneOrMany"] = {
            "title": "EndpointOneOrMany",
            "oneOf": [{"$ref": f"{SCHEMAS}EndpointIn"}, {"$ref": f"{SCHEMAS}EndpointsIn"}],
        }
        app.openapi_schema = complete(with_security(without_item_schemas(document)))
    return app.openapi_schema


def _schemas(models: Iterable[type[BaseModel]], mode: Any) -> dict[str, Any]:
    _, found = models_json_schema([(model, mode) for model in models], ref_template=SCHEMAS + "{model}")
    definitions: dict[str, Any] = found["$defs"]
    return definitions


def without_item_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """`itemSchema` belongs to OpenAPI 3.2; strict generators refuse it in a document that says 3.1."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation.get("responses", {}).values():
                for content in response.get("content", {}).values():
                    content.pop("itemSchema", None)
    return document


def with_security(document: dict[str, Any]) -> dict[str, Any]:
    """A bearer token everywhere but where nobody is asked; so Swagger UI has its button, and sends it."""
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `kvnet token create`: paste it as it is, `kvnet_..._...`.",
        }
    }
    document["security"] = [{"bearer": []}]
    for path, operations in document["paths"].items():
        if is_open(path):
            for operation in operations.values():
                operation["security"] = []
    return document
