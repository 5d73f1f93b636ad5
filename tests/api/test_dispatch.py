"""Whatever is asked for, the way past FastAPI's router ends where that router would have ended."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Match, Route

from backends.memory import MemoryStore
from controller.api.dispatch import Dispatch
from controller.app import create_app
from controller.cluster import Cluster


def _never() -> Cluster:
    raise AssertionError


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(_never, MemoryStore())  # type: ignore[arg-type]


def _scope(method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}


def test_it_finds_what_the_router_finds_and_the_same_parts_of_the_path(app: FastAPI) -> None:
    dispatch = Dispatch(app.router.routes, app.router)
    paths = {re.sub(r"\{[^}]*\}", "x.y-1", route.path) for route in app.router.routes if isinstance(route, Route)}
    found = 0
    for path in sorted(paths | {"/v1/networks/", "/v1/nothing", "/", "//", "/v1/networks/a/b/endpoints"}):
        for method in ("GET", "POST", "PATCH", "DELETE", "PUT"):
            scope = _scope(method, path)
            matches = [(route, *route.matches(_scope(method, path))) for route in app.router.routes]
            first = next(((route, child) for route, match, child in matches if match is Match.FULL), None)
            taken = dispatch._find(scope)
            if taken is None:  # left to the router
                continue
            found += 1
            assert first is not None
            assert taken is first[0]
            assert scope["path_params"] == first[1]["path_params"]
    assert found > 20
