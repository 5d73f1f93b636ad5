"""A worker that is stopped past the end of its session and wakes up fences itself; what it carried is still there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnet.errors import HostFenced
from lab.lab import Lab, open_lab, until

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

TTL_S = 10
EXPIRY_S = 4.0 * TTL_S


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        for name in ("h1", "h2"):
            await made.start_worker(name, "--ttl", f"{TTL_S}s")
        for name in ("h1", "h2"):
            await made.until_ready(name)
        yield made


async def test_a_worker_that_wakes_up_after_its_session_expired_fences_itself(lab: Lab) -> None:
    await lab.client.create_network({"name": "net"})
    for workload, host in (("a", "h1"), ("b", "h2"), ("c", "h2")):
        await lab.add_workload(workload, host)
    await lab.attach("net", "a")
    carried = (await lab.attach("net", "b"))["endpoint"]
    frozen = lab.hosts["h2"]
    assert frozen.worker is not None
    before = await lab.client.get_host("h2")

    frozen.worker.signal(signal.SIGSTOP)
    try:

        async def is_down() -> bool:
            return (await lab.client.get_host("h2"))["state"] == "down"

        await until(is_down, "the host is down", seconds=EXPIRY_S)
        assert (await lab.ping("a", carried["address"])).ok  # the data plane needs no worker
        told = await lab.client.get_host("h2")
        assert told["down_since"] is not None
        assert told["incarnation"] == before["incarnation"] != ""
        asked = asyncio.create_task(lab.attach("net", "c"))
        for _ in range(50):  # it is on its way into the socket of a process that does not run
            await asyncio.sleep(0)
    finally:
        frozen.worker.signal(signal.SIGCONT)

    with pytest.raises(HostFenced, match="lost its session"):
        await asked
    await lab.until_ready("h2")
    await lab.attach("net", "c")

    again = await lab.client.get_host("h2")
    assert (again["state"], again["down_since"], again["endpoints"]) == ("alive", None, 2)
    assert (await lab.ping("a", carried["address"])).ok
