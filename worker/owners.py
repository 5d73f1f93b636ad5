"""Whose an object of ours is: the network that a device, a route or an operation belongs to.

By the desired states and scopes of the networks in question, then by what the kernel shows, then by the name alone.
Pure; "" stands for the host as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datapath.names import network_of_device
from datapath.objects import (
    CloseGate,
    CreateLink,
    DeleteLink,
    Enslave,
    ForgetCallers,
    ForgetFlows,
    HostState,
    Ip,
    Link,
    OpenGate,
    Operation,
    PortEntry,
    Release,
    Route,
    Scope,
    SetFirewall,
    SetSysctl,
    UpdateLink,
    Veth,
)
from datapath.sysctls import device_of_sysctl

WHOLE_HOST = ""


class Owners:
    """`desired` by network; `scopes` of those and of networks that are going; `actual`: links as they were found."""

    def __init__(
        self, desired: Mapping[str, HostState], scopes: Iterable[Scope], actual: Mapping[str, Link] | None = None
    ) -> None:
        self._actual = actual or {}
        self._devices: dict[str, str] = {}
        self._blocks: dict[tuple[Ip, int], str] = {}
        for scope in scopes:
            self._devices.update(dict.fromkeys(scope.inside, scope.network))
            self._blocks.update(dict.fromkeys(scope.blocks, scope.network))
            if scope.bridge:
                self._devices[scope.bridge] = scope.network
        for network_id, state in desired.items():
            self._devices.update(dict.fromkeys(state.links, network_id))

    def of_device(self, name: str) -> str:
        known = self._devices.get(name)
        if known is not None:
            return known
        link = self._actual.get(name)
        if isinstance(link, Veth) and link.bridge:
            return self._devices.get(link.bridge) or network_of_device(link.bridge) or WHOLE_HOST
        return network_of_device(name) or WHOLE_HOST

    def of_destination(self, address: Ip) -> str:
        """The network that has the address in one of its subnets."""
        return next((owner for block, owner in self._blocks.items() if is_in(address, block)), WHOLE_HOST)

    def of_route(self, route: Route) -> str:
        return self.of_device(route.device) if route.device else self.of_destination(route.destination)

    def of_link(self, link: Link) -> str:
        owner = self.of_device(link.name)
        if owner == WHOLE_HOST and isinstance(link, Veth) and link.bridge:
            return self.of_device(link.bridge)
        return owner

    def of_operation(self, operation: Operation) -> str:
        match operation:
            case CreateLink() | UpdateLink() | DeleteLink():
                return self.of_link(operation.link)
            case SetFirewall() | OpenGate() | CloseGate() | ForgetCallers():
                return WHOLE_HOST
            case SetSysctl(path, _):
                return self.of_device(device_of_sysctl(path) or "")
            case ForgetFlows(address, _, _):
                return self.of_destination(address)
            case Enslave(entry) | Release(entry):
                return self.of_device(entry.bridge)
        entry = getattr(operation, operation.__match_args__[0])
        if isinstance(entry, Route):
            return self.of_route(entry)
        return self.of_device(entry.port if isinstance(entry, PortEntry) else entry.device)


def is_in(address: Ip, block: tuple[Ip, int]) -> bool:
    """Whether a packed address is in a block of its family."""
    first, length = block
    shift = 8 * len(first) - length
    return len(address) == len(first) and int.from_bytes(address) >> shift == int.from_bytes(first) >> shift
