"""Who leaves in the middle of a request is no failure of ours: whoever likes can do that, all day."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests import stores
from tests.api.under_test import running

pytestmark = pytest.mark.anyio

DEADLINE_S = 10.0
HEAD = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope=stores.module_loop_scope)
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("path", ["/v1/login", "/v1/join", "/v1/networks"])
@pytest.mark.parametrize(
    "rest",
    [b'content-length: 100\r\n\r\n{"name":', b'transfer-encoding: chunked\r\n\r\n8\r\n{"name":\r\n'],
    ids=["length", "chunked"],
)
async def test_a_body_that_breaks_off_is_counted_as_gone_and_not_as_a_failure(
    caplog: pytest.LogCaptureFixture, path: str, rest: bytes
) -> None:
    caplog.set_level(logging.INFO, "kvnet.api")
    async with running("memory://") as api:
        _reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        writer.write(HEAD % path.encode() + rest)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(DEADLINE_S):
            counted = f'method="POST",route="{path}",status="499"'
            while counted not in (told := (await api.http.get("/metrics")).text):
                assert f'route="{path}",status="5' not in told
                await asyncio.sleep(0.02)
        assert "request-failed" not in caplog.text
        assert (await api.http.get("/v1/networks")).json()["items"] == []
