"""A wish that is put where nobody reads it, or said twice, must not do the thing for real."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import stores
from tests.api.under_test import Api, problem_of

pytestmark = pytest.mark.anyio

OPENAPI: dict[str, Any] = json.loads(Path("docs/openapi.json").read_text())
WITHOUT = sorted(
    (method, path)
    for path, methods in OPENAPI["paths"].items()
    for method, told in methods.items()
    if method in ("post", "put", "patch", "delete") and "requestBody" not in told
)


@pytest.fixture(scope=stores.module_loop_scope)
def anyio_backend() -> str:
    return "asyncio"


async def test_there_are_such_ways() -> None:
    assert ("post", "/v1/networks/prune") in WITHOUT


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_a_wish_in_a_body_that_nobody_reads_is_refused_and_nothing_is_done(api: Api, is_chunked: bool) -> None:
    network = await api.network(name="kept")

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"dry_run": '
        yield b"true}"

    for method, path in WITHOUT:
        filled = re.sub(r"\{\w+\}", network["id"], path)
        body: Any = chunks() if is_chunked else b'{"dry_run": true}'
        answer = await api.http.request(method, filled, content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), (method, path, answer.text)
        assert "no body" in answer.json()["detail"]
    assert (await api.get("/v1/networks/kept")).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{}", b" {} "])
async def test_an_empty_one_says_nothing_and_is_passed_over(api: Api, body: bytes) -> None:
    await api.network(name="gone")
    answer = await api.http.request("DELETE", "/v1/networks/gone", content=body)
    assert answer.status_code == 204


async def test_a_parameter_that_is_said_twice_is_refused_unless_it_may_be(api: Api) -> None:
    await api.network(name="kept", labels={"a": "1", "b": "2"})

    problem_of(await api.http.delete("/v1/networks/kept?dry_run=plan&dry_run=plan"), 422, "invalid")
    problem_of(await api.post("/v1/networks/prune?dry_run=true&dry_run=false"), 422, "invalid")
    found = (await api.get("/v1/networks?label=a&label=b%3D2")).json()["items"]
    assert [one["name"] for one in found] == ["kept"]
