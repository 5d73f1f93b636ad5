"""Reads JSON bodies: straight from bytes into a checked request, with one wording for everything that is wrong.

FastAPI's own way parses to Python objects first and validates those; this goes through pydantic once, at a third of the
time, and can be strict about types. The price is that OpenAPI must be told: `documented` does.
"""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from controller.api.errors import MalformedRequest, UnsupportedMediaType
from controller.api.problems import from_validation
from kvnet.errors import Invalid
from kvnet.rules import shown

T = TypeVar("T")

SCHEMAS = "#/components/schemas/"
_TELL_OF_BODY = frozenset({b"content-length", b"transfer-encoding"})


class JsonBody(Generic[T]):
    """A body of one type. `name` is its schema's name in OpenAPI, `tags` are union labels that no client should see."""

    def __init__(
        self,
        kind: Any,
        name: str,
        *,
        tags: frozenset[str] = frozenset(),
        kinds: tuple[str, ...] = ("application/json",),
        is_optional: bool = False,
    ) -> None:
        self.name = name
        self.adapter: TypeAdapter[T] = TypeAdapter(kind)
        self._tags = tags
        self._kinds = kinds
        self._is_optional = is_optional

    async def read(self, request: Request) -> T:
        """
        Raises:
            UnsupportedMediaType: not declared as JSON.
            MalformedRequest: empty, or not JSON.
            Invalid: JSON, but not what is asked for; says which fields.
        """
        require_json(_content_type(request))
        data = await _whole(request)
        if not data:
            raise MalformedRequest("the body is empty", fix="send a JSON object")
        return self._read(data)

    async def read_if_any(self, request: Request) -> T | None:
        """As `read`; None without a body.

        Raises:
            As `read`.
        """
        data = await _whole(request)
        if not data:
            return None
        require_json(_content_type(request))
        return self._read(data)

    def _read(self, data: bytes) -> T:
        try:
            read = self.adapter.validate_json(data)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            raise from_validation({**d, "loc": self._plain(d["loc"])} for d in details) from None
        _require_unique_names(data)
        return read

    def _plain(self, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
        return loc[1:] if loc and loc[0] in self._tags else loc

    def documented(self, **examples: Any) -> dict[str, Any]:
        """What `openapi_extra` of a path operation gets."""
        shown = {name: {"summary": name.replace("_", " "), "value": value} for name, value in examples.items()}
        schema = {"schema": {"$ref": SCHEMAS + self.name}}
        content = {**schema, "examples": shown} if shown else schema
        return {"requestBody": {"required": not self._is_optional, "content": dict.fromkeys(self._kinds, content)}}


def _content_type(request: Request) -> str:
    return next((value.decode("latin-1") for name, value in request.scope["headers"] if name == b"content-type"), "")


async def require_none(request: Request) -> None:
    """For what takes no body: `{"dry_run": true}` in one must not do it for real.

    Raises:
        Invalid
    """
    has_any = any(name in _TELL_OF_BODY for name, _ in request.scope["headers"])
    if has_any and (await _whole(request)).strip() not in (b"", b"{}"):
        raise Invalid(
            f"{request.method} takes no body at {shown(request.scope['path'])}",
            fix="say it in the query; /docs shows what there is",
        )


async def _whole(request: Request) -> bytes:
    """As `request.body()`, which takes five times as long for a body that is there in one piece, as most are.

    Raises:
        ClientDisconnect: before it was all there.
    """
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _require_unique_names(data: bytes) -> None:
    """One reader would take the first, another the last. Only of what is known to be sound JSON.

    Raises:
        MalformedRequest
    """
    _decode(data.decode())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise MalformedRequest(f"{shown(twice)} is there twice in one object", fix="give each field once")
    return read


_decode = json.JSONDecoder(object_pairs_hook=_unique).decode  # made once: that takes as long as reading a body


def require_json(content_type: str) -> None:
    if content_type == "application/json":
        return
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    shown = repr(kind[:80]) if kind else "missing"
    raise UnsupportedMediaType(f"the Content-Type is {shown}", fix="send the header 'Content-Type: application/json'")
