"""Who waits for what hosts answer does not keep a controller from stopping."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from backends.memory import MemoryStore
from controller.api.measure import HttpMetrics
from controller.api.service import Service
from controller.security.authentication import OPEN
from kvnet.errors import ControllerUnreachable, HostSilent

pytestmark = pytest.mark.anyio


@pytest.fixture
def service() -> Service:
    registry = CollectorRegistry()
    return Service(MemoryStore(), registry, HttpMetrics(registry))


async def test_what_a_host_answers_is_handed_on(service: Service) -> None:
    async def answer() -> dict[str, Any]:
        return {"host": "h1"}

    async def silence() -> dict[str, Any]:
        raise HostSilent("host h1 does not answer")

    assert await service.unless_stopped(answer(), OPEN) == {"host": "h1"}
    with pytest.raises(HostSilent):
        await service.unless_stopped(silence(), OPEN)


async def test_a_controller_that_stops_waits_for_no_host(service: Service) -> None:
    asked, given_up = asyncio.Event(), asyncio.Event()

    async def never() -> dict[str, Any]:
        try:
            asked.set()
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return {}

    waiting = asyncio.create_task(service.unless_stopped(never(), OPEN))
    async with asyncio.timeout(5):
        await asked.wait()
        service.stopping.set()
        with pytest.raises(ControllerUnreachable, match="is stopping"):
            await waiting
        await given_up.wait()
