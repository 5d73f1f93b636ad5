"""A host port that the calling runtime itself keeps for a container is no stranger's."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from kvnet.model import PublishedPort
from kvnet.wire import Endpoint
from worker.hostports import who_listens
from worker.ports import Listener

pytestmark = pytest.mark.anyio
PODMAN, NGINX = 100, 200


class Listening:
    """`programs`: which socket has which host port; whose it is cannot be seen."""

    def __init__(self, programs: dict[int, int]) -> None:
        self._programs = programs

    async def first(self, ports: Sequence[PublishedPort], versions: Sequence[int]) -> Listener | None:
        for port in ports:
            if port.host_port in self._programs:
                return Listener(port, IPv4Address(0), 0, "", self._programs[port.host_port])
        return None


def endpoint(*host_ports: int) -> Endpoint:
    ports = [{"port": port, "host_port": port} for port in host_ports]
    plain: dict[str, Any] = {"ports": ports, "addresses": ["10.1.0.2", "fd00::2"]}
    return cast(Endpoint, plain)


async def test_what_a_caller_keeps_is_free_for_it_and_for_nobody_else() -> None:
    listening = Listening({8080: PODMAN})
    assert await who_listens(listening, endpoint(8080), {PODMAN}) is None
    assert await who_listens(listening, endpoint(8080)) is not None


async def test_behind_a_port_that_a_caller_keeps_a_strangers_is_found() -> None:
    there = await who_listens(Listening({8080: PODMAN, 8081: NGINX}), endpoint(8080, 8081), {PODMAN})
    assert there is not None
    assert there.socket == NGINX
