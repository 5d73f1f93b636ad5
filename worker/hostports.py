"""Host ports of an endpoint against the programs of this host: the controller cannot see who listens here.

Asks, never binds: whoever comes between the question and the rule that leads the port away is not disturbed by it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import ip_address

from kvnet.errors import PortTaken
from kvnet.model import PublishedPort
from kvnet.wire import Endpoint, PortBody
from worker.ports import Listener, Listeners

# So often another port is asked for where a program on this host has the one that the controller chose.
PORT_ATTEMPTS = 5


def chooses_all(ports: Sequence[PortBody]) -> bool:
    """Every host port was asked for by number, so another one would not do."""
    return all("host_port" in port and ("host_port_end" not in port or "port_end" in port) for port in ports)


def published(endpoint: Endpoint) -> list[PublishedPort]:
    """The host ports that the controller gave it."""
    found = []
    for port in endpoint.get("ports") or ():
        at = port.get("host_address")
        address = ip_address(at) if at else None
        if address is not None and address.is_unspecified:
            address = None
        found.append(PublishedPort(port["port"], port.get("protocol", "tcp"), port.get("host_port"), address))
    return found


async def who_listens(listeners: Listeners, endpoint: Endpoint, kept: Collection[int] = frozenset()) -> Listener | None:
    """The first program that has one of the endpoint's ports; `kept`: sockets that keep them for it."""
    ports = published(endpoint)
    if not ports:
        return None
    versions = sorted({ip_address(text).version for text in endpoint["addresses"]})
    there = await listeners.first(ports, versions)
    if there is None or there.socket not in kept:
        return there
    for port in ports:
        for version in versions:
            there = await listeners.first([port], [version])
            if there is not None and there.socket not in kept:
                return there
    return None


def taken(there: Listener, host: str) -> PortTaken:
    return PortTaken(
        f"{there}, so it cannot be published",
        fix="stop that program, or publish another port or on another address",
        context={"host": host, "pid": there.pid, "program": there.program},
    )
