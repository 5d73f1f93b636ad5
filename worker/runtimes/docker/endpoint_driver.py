"""Docker's calls about endpoints: its names for what was claimed, and the interface that it moves into a container.

The endpoint itself was claimed when Docker asked for its address. Every call may come twice, teardown also for what is
gone or was never there; ports are in the endpoint's record, so that they go with it whether Docker revokes them or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

from datapath.drivers.places import Place, Way, place_of, reaches_host, way_to_host
from kvnet.errors import Invalid, KvnetError, NotFound
from kvnet.model import Address, Network
from kvnet.wire import PortBody
from worker.attachments import Phase, Record
from worker.runtimes.docker.departures import Departures
from worker.runtimes.docker.ipam_driver import RUNTIME
from worker.runtimes.docker.ledger import Binding, Ledger
from worker.runtimes.docker.options import GATEWAY, GWBRIDGE
from worker.runtimes.docker.patience import Patience
from worker.runtimes.docker.ports import Workloads
from worker.runtimes.docker.wire import EndpointRequest

VIA, ON_LINK = 0, 1  # RouteType
PREFIX = "eth"


class EndpointDriver:
    """`dns`: where names are answered, or None. `underlay`: this host's address, as far as it is known."""

    def __init__(
        self,
        workloads: Workloads,
        ledger: Ledger,
        departures: Departures,
        patience: Patience,
        dns: IPv4Address | None,
        underlay: Callable[[], Address | None],
    ) -> None:
        self._workloads = workloads
        self._departures = departures
        self._ledger = ledger
        self._patience = patience
        self._dns = dns
        self._underlay = underlay

    async def create(self, request: EndpointRequest) -> Mapping[str, Any]:
        """Docker's id for what was claimed. Only what Docker left open may be in the answer."""
        binding = self._binding(request)
        record = self._record(request) or self._claim(request, binding)
        if record is None:
            raise NotFound(
                f"the address {request.address or request.address6} is not claimed for this container (any more)",
                fix="start it again",
            )
        known = record.answer.get("addresses", ())
        for address in (request.address, request.address6):
            if address and address not in known:
                raise Invalid(f"the endpoint has {', '.join(known)}, not {address}", fix="start the container again")
        if record.external != request.endpoint:
            record = await self._workloads.call_it(record.endpoint, request.endpoint)
        return {} if request.mac else {"Interface": {"MacAddress": record.answer.get("mac", "")}}

    async def join(self, request: EndpointRequest) -> Mapping[str, Any]:
        if not request.sandbox:
            raise Invalid("Docker named no sandbox")
        binding = self._binding(request)
        record = self._record(request)
        if record is None:
            raise NotFound("kvnet knows no such endpoint", fix="start the container again")
        network = await self._patience.network(binding.network)
        routes = self._dns_routes(record, network, request.sandbox)
        record = await self._workloads.hand_over(record.endpoint, request.sandbox, routes)
        return self._joined(record, network, binding, self._ways_to_names(network, routes))

    async def leave(self, request: EndpointRequest) -> Mapping[str, Any]:
        """It is deleted in a moment, whatever happens: what takes time begins now."""
        record = self._record(request)
        if record is not None:
            self._departures.begin(record.endpoint, partial(self._bequeath, record))
        return {}

    async def delete(self, request: EndpointRequest) -> Mapping[str, Any]:
        for record in self._records_of(request):
            if record.phase is not Phase.DETACHING or self._departures.is_going(record.endpoint):
                await self._departures.until_gone(record.endpoint)
        return {}

    async def info(self) -> Mapping[str, Any]:
        """Nothing that Docker would show; but never an error, which would end a container's start."""
        return {"Value": {}}

    async def publish(self, request: EndpointRequest, ports: list[PortBody]) -> Mapping[str, Any]:
        """
        Raises:
            KvnetError: a port is taken, say: the container does not start.
        """
        record = self._record(request)
        if record is None:
            raise NotFound("kvnet knows no such endpoint", fix="start the container again")
        if self._binding(request).egress == GWBRIDGE or _are_published(ports, record.answer.get("ports", ())):
            return {}
        await self._departures.give_way(lambda: self._workloads.change(record.endpoint, {"ports": ports}))
        return {}

    async def withdraw(self, request: EndpointRequest) -> Mapping[str, Any]:
        record = self._record(request)
        if record is not None and record.answer.get("ports"):
            await self._workloads.change(record.endpoint, {"ports": []})
        return {}

    def _binding(self, request: EndpointRequest) -> Binding:
        binding = self._ledger.binding(request.network)
        if binding is None:
            raise NotFound(
                f"kvnet does not know Docker's network {request.network[:12]}",
                fix="remove it ('docker network rm'); if it is one of kvnet's, it comes back by itself",
            )
        return binding

    def _record(self, request: EndpointRequest) -> Record | None:
        found = (record for record in self._records_of(request) if record.phase is not Phase.DETACHING)
        return next(found, None)

    def _records_of(self, request: EndpointRequest) -> list[Record]:
        ours = (record for record in self._workloads.records() if record.runtime == RUNTIME)
        return [record for record in ours if record.external == request.endpoint]

    def _claim(self, request: EndpointRequest, binding: Binding) -> Record | None:
        wanted = {request.address, request.address6} - {""}
        for record in self._workloads.records():
            is_open = record.runtime == RUNTIME and record.phase is Phase.CLAIMED and not record.external
            is_open = is_open and not self._departures.is_going(record.endpoint)
            if is_open and record.network_id == binding.network and wanted & set(record.answer.get("addresses", ())):
                return record
        return None

    def _joined(self, record: Record, network: Network, binding: Binding, to_names: Sequence[Way]) -> Mapping[str, Any]:
        addresses = [ip_address(text) for text in record.answer.get("addresses", ())]
        places = [place_of(network, address, self._underlay()) for address in addresses]
        ways = [*(way for place in places for way in place.routes), *to_names]
        answer: dict[str, Any] = {
            "InterfaceName": {"SrcName": record.interface, "DstPrefix": network.interface_prefix or PREFIX},
            "StaticRoutes": [_route(way) for way in ways],
        }
        if network.internal or binding.egress == GATEWAY:
            # Without a gateway Docker would add an interface on a bridge of its own.
            gateways = {} if network.internal else _gateways(places)
            answer.update(gateways or {"DisableGatewayService": True})
        return answer

    def _dns_routes(self, record: Record, network: Network, sandbox: str) -> list[str]:
        """Once per sandbox: the kernel refuses a second one over another interface, and with it the interface."""
        if self._dns is None or not reaches_host(network) or not _has_ipv4(record):
            return []
        route = f"{self._dns}/32"
        stay = (other for other in self._staying(sandbox) if route in other.routes)
        return [] if any(other.endpoint != record.endpoint for other in stay) else [route]

    def _ways_to_names(self, network: Network, routes: list[str]) -> list[Way]:
        return [way_to_host(network, self._dns, self._underlay())] if routes and self._dns is not None else []

    async def _bequeath(self, gone: Record) -> None:
        """The way to the names left the sandbox with its interface: another one of that container's takes it over."""
        route = f"{self._dns}/32"
        heirs = self._staying(gone.netns)
        if route not in gone.routes or any(route in other.routes for other in heirs):
            return
        for other in heirs:
            try:
                if _has_ipv4(other) and reaches_host(await self._patience.network(other.network_id)):
                    await self._workloads.add_route(other.endpoint, route)
                    return
            except KvnetError:
                continue  # it goes too, most likely: the container stops

    def _staying(self, sandbox: str) -> list[Record]:
        return [
            record
            for record in self._workloads.records()
            if record.netns == sandbox
            and record.phase is Phase.ATTACHED
            and not self._departures.is_going(record.endpoint)
        ]


def _has_ipv4(record: Record) -> bool:
    """What asks for names there needs an address to ask from: the server's is an IPv4 one."""
    return any(ip_address(text).version == 4 for text in record.answer.get("addresses", ()))


def _gateways(places: list[Place]) -> dict[str, Any]:
    names = {4: "Gateway", 6: "GatewayIPv6"}
    return {names[place.gateway.version]: str(place.gateway) for place in places if place.gateway is not None}


def _route(way: Way) -> Mapping[str, Any]:
    kind, hop = (ON_LINK, "") if way.gateway is None else (VIA, str(way.gateway))
    return {"Destination": str(way.destination), "RouteType": kind, "NextHop": hop}


def _are_published(wanted: list[PortBody], there: Any) -> bool:
    """Whether that is what the endpoint has: a port that was chosen once is kept when Docker asks again."""
    return len(wanted) == len(there) and all(any(_fits(port, has) for has in there) for port in wanted)


def _fits(wanted: PortBody, has: Mapping[str, Any]) -> bool:
    first = wanted.get("host_port")
    last = wanted.get("host_port_end", first)
    has_port = has.get("host_port") or 0
    return (
        (wanted["port"], wanted["protocol"]) == (has.get("port"), has.get("protocol"))
        and (first is None or last is None or first <= has_port <= last)
        and wanted.get("host_address") in (None, has.get("host_address"))
    )
