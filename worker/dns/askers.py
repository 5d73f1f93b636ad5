"""Who asks: from the address a question came from to the zone of that workload.

The address is an endpoint's of this host; the workload is everything in the same namespace; its networks are those of
its endpoints. Whoever asks from another address is nobody's workload, and gets no names. What is known of a source is
looked at again a moment later, so that a workload's zone follows what it is attached to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from datapath.view import HostView
from kvnet.model import Address, Block, Driver, Endpoint, Host, Network
from worker.attachments import Phase, Record
from worker.dns.answers import Answers
from worker.dns.zone import Names, Zone

KNOWN_S = 0.1
MOST_SOURCES = 4096
NOBODY = Zone()


@dataclass(frozen=True, slots=True)
class Listing:
    """One network as this host knows it. `mark`: another one where any of it may have changed."""

    network: Network | None
    endpoints: Mapping[str, Endpoint]
    blocks: Sequence[Block]
    is_complete: bool
    mark: object


class Knowledge(Protocol):
    """What this host knows of the cluster."""

    @property
    def is_complete(self) -> bool:
        """Every network of this host is known; else an unknown source may well be a workload."""
        ...

    @property
    def own(self) -> Host | None: ...

    def networks(self) -> Iterable[str]: ...

    def listing(self, network_id: str) -> Listing | None: ...

    def version(self, endpoint: Endpoint) -> int: ...


@dataclass(slots=True)
class Known:
    """`is_whole`: whether that the name is not in the zone means that there is none."""

    answers: Answers
    is_whole: bool
    until: float


class Askers:
    """`own`: addresses that only this host itself asks from. `records`: what is attached here."""

    def __init__(
        self,
        host: str,
        knowledge: Knowledge,
        records: Callable[[], Iterable[Record]],
        *,
        own: frozenset[str],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._host = host
        self._knowledge = knowledge
        self._records = records
        self._own = own
        self._clock = clock
        self._rng = rng
        self._names: dict[str, Names] = {}
        self._marks: dict[str, object] = {}
        self._known: dict[str, Known] = {}
        self._workloads: dict[str, list[Record]] = {}
        self._gathered_at = float("-inf")

    def known(self, source: str) -> Known:
        now = self._clock()
        found = self._known.get(source)
        if found is not None and now < found.until:
            for names in found.answers.zone.networks:
                self._follow(names)
            return found
        zone, is_whole = self._look(source)
        # The same zone keeps its answers.
        is_same = found is not None and found.answers.zone == zone
        answers = found.answers if found is not None and is_same else Answers(zone, self._knowledge.version, self._rng)
        if len(self._known) >= MOST_SOURCES:
            self._known.clear()
        self._known[source] = known = Known(answers, is_whole, now + KNOWN_S)
        return known

    def _look(self, source: str) -> tuple[Zone, bool]:
        self._follow_all()
        if source in self._own:
            return Zone(tuple(self._names.values()), is_host=True), self._knowledge.is_complete
        endpoint = self._endpoint_at(ip_address(source))
        if endpoint is None:
            return NOBODY, self._knowledge.is_complete
        records = self._records_of(endpoint)
        ids = {endpoint.network: None, **dict.fromkeys(record.network_id for record in records)}
        networks = tuple(self._names[id_] for id_ in ids if id_ in self._names)
        endpoints = [e for record in records if (e := self._endpoint(record)) is not None]
        zone = Zone(networks, self._gateways(endpoints or [endpoint]))
        return zone, len(networks) == len(ids)

    # the workload

    def _endpoint_at(self, address: Address) -> Endpoint | None:
        found = (names.at(address) for names in self._names.values())
        return next((endpoint for endpoint in found if endpoint is not None and endpoint.host == self._host), None)

    def _records_of(self, endpoint: Endpoint) -> list[Record]:
        """All of the workload's that are attached, in the order in which they were."""
        now = self._clock()
        if now - self._gathered_at >= KNOWN_S:
            self._gathered_at, self._workloads = now, _by_workload(self._records())
        return next((group for group in self._workloads.values() if any(r.endpoint == endpoint.id for r in group)), [])

    def _endpoint(self, record: Record) -> Endpoint | None:
        listing = self._knowledge.listing(record.network_id)
        return listing.endpoints.get(record.endpoint) if listing is not None else None

    def _gateways(self, endpoints: Sequence[Endpoint]) -> tuple[Address, ...]:
        """One of each family, by the network that is the way out."""
        found: dict[int, Address] = {}
        for endpoint in sorted(endpoints, key=lambda e: -e.gateway_priority):
            listing = self._knowledge.listing(endpoint.network)
            if listing is not None and listing.network is not None:
                for address in endpoint.addresses:
                    gateway = self._gateway(listing.network, listing.blocks, address)
                    if gateway is not None:
                        found.setdefault(gateway.version, gateway)
        return tuple(found[version] for version in sorted(found))

    def _gateway(self, network: Network, blocks: Sequence[Block], address: Address) -> Address | None:
        """The host's address towards that one of the workload's."""
        if network.internal:
            return None
        if network.driver is Driver.TRANSPARENT:  # the gateway is the physical network's, not the host
            own = self._knowledge.own
            is_there = network.shim and own is not None and own.underlay.version == address.version
            return own.underlay if own is not None and is_there else None
        if network.driver is Driver.ROUTED:
            near = (b for b in blocks if b.cidr.version == address.version and address in b.cidr)
            return next((block.gateway for block in near), None)
        subnet = network.subnet_of(address)
        return subnet.gateway if subnet is not None else None

    # the networks

    def _follow_all(self) -> None:
        ids = list(self._knowledge.networks())
        for gone in self._names.keys() - set(ids):
            del self._names[gone]
            self._marks.pop(gone, None)
        for id_ in ids:
            self._names.setdefault(id_, Names(id_))
            self._follow(self._names[id_])

    def _follow(self, names: Names) -> None:
        listing = self._knowledge.listing(names.id)
        if listing is None:
            names.follow(None, {}, is_complete=False)
            self._marks.pop(names.id, None)
        elif self._marks.get(names.id) != listing.mark:
            names.follow(listing.network, listing.endpoints, is_complete=listing.is_complete)
            self._marks[names.id] = listing.mark


def knowledge_of(view: HostView) -> Mapping[str, Listing]:
    """The networks of a view that does not change any more."""
    return {
        id_: Listing(network, view.endpoints.get(id_, {}), tuple(view.blocks.get(id_, ())), True, id(view))
        for id_, network in view.networks.items()
    }


def _by_workload(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        workload = record.identity or record.netns
        if record.phase in (Phase.ATTACHED, Phase.ATTACHING) and workload and record.network_id:
            found.setdefault(workload, []).append(record)
    return {workload: sorted(group, key=lambda record: record.order) for workload, group in found.items()}
