"""Ten thousand published ports: set at once, changed one by one, and no connection waits longer for them."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from statistics import median

import pytest

from datapath.objects import Publication, SetFirewall
from lab import namespaces
from tests.lab.kernel.site import EVERYWHERE, HOST, LISTENING, TCP, Site, address, open_site, packed
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

MANY = 10_000
FULL_SECONDS, ONE_SECONDS = 1.0, 0.05  # what is asked for on a quiet machine; others may use this one
PATIENCE = 4
CONNECTIONS = 300


def publications(count: int) -> frozenset[Publication]:
    to = packed(address("b1", 4))
    return frozenset(Publication(TCP, b"", 20_000 + number, to, LISTENING) for number in range(count))


async def seconds_of(kernel: LinuxKernel, operation: SetFirewall) -> float:
    start = asyncio.get_running_loop().time()
    assert await kernel.apply([operation]) == []
    return asyncio.get_running_loop().time() - start


def connect(site: Site, to: str, port: int, count: int) -> float:
    """The median time of a new connection, in seconds."""
    taken = []
    with namespaces.open_socket(site.netns["a1"], socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", LISTENING))
        listener.listen(16)
        for _ in range(count):
            with namespaces.open_socket(site.netns["outside"], socket.AF_INET, socket.SOCK_STREAM, 0) as caller:
                caller.settimeout(5)
                start = time.perf_counter()
                caller.connect((to, port))
                taken.append(time.perf_counter() - start)
                listener.accept()[0].close()
    return median(taken)


async def test_ten_thousand_ports_cost_a_connection_nothing_and_one_more_is_quick() -> None:
    async with open_site(is_filtering_bridged=False) as site:
        few = site.firewall
        many = replace(few, publications=few.publications | publications(MANY))
        with_few = connect(site, HOST[4], EVERYWHERE, CONNECTIONS)

        assert await seconds_of(site.kernel, SetFirewall(many)) < PATIENCE * FULL_SECONDS

        assert (await site.kernel.read()).firewall == many
        assert connect(site, HOST[4], EVERYWHERE, CONNECTIONS) < 2 * with_few
        changes = []
        for number in range(5):
            one = Publication(TCP, b"", 1000 + number, packed(address("a1", 4)), LISTENING)
            changes.append(
                await seconds_of(site.kernel, SetFirewall(replace(many, publications=many.publications | {one})))
            )
        assert median(changes) < PATIENCE * ONE_SECONDS
