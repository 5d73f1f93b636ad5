"""What both kernels of a `Twin` are asked, and how their answers are compared: place, sender as seen, hosts on the way.

Only what the surroundings of both can tell: of the world behind a physical network's own router neither knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from datapath.fabric import OUTSIDE, UDP, Path
from kvnet.model import Driver, Endpoint, Network
from tests.lab.datapath.asking import Answer, Question
from tests.lab.datapath.twin import ANYWHERE, AT_ADDRESS, DNS, HOSTS, OF_ISOLATED, OF_ROUTED, ON_LOOPBACK, PORT, Twin

PUBLISHED = (ANYWHERE, AT_ADDRESS, OF_ISOLATED, ON_LOOPBACK, OF_ROUTED)
UNPUBLISHED = 20099
DNS_PORT = 53
LED_ASTRAY = 100  # + a host's number: the mark of what the router leads to that host
OUTSIDES = {length: str(ip_address(address)) for length, address in OUTSIDE.items()}


@dataclass(frozen=True, slots=True)
class Seen:
    """Where it arrives ("" = nowhere), as whose, at which port there, and the other hosts that it crossed."""

    at: str = ""
    source: str = ""
    port: int = 0
    crossed: tuple[str, ...] = ()


def every_question(twin: Twin) -> list[Question]:
    return list(dict.fromkeys([*_of_workloads(twin), *_of_hosts(twin), *_of_others(twin)]))


def _endpoints(twin: Twin) -> list[Endpoint]:
    return [record for records in twin.world.endpoints.values() for record in records.values()]


def _of_workloads(twin: Twin) -> Iterator[Question]:
    world = twin.world
    for source in _endpoints(twin):
        versions = {address.version for address in source.addresses}
        net = world.networks[source.network]
        is_physical = net.driver is Driver.TRANSPARENT
        for target in _endpoints(twin):
            if target is not source and (not is_physical or target.network == source.network):
                yield from (Question(source.id, str(a), PORT) for a in target.addresses if a.version in versions)
        yield from (Question(source.id, DNS, port) for port in (DNS_PORT, UNPUBLISHED) if 4 in versions)
        if is_physical:
            if net.shim:
                yield Question(source.id, twin.underlay(source.host, 4), UNPUBLISHED)
            machines = world.fabric.machines[f"wire-{net.uplink}"]
            yield from (Question(source.id, str(ip_address(a)), PORT) for a in machines if _version(a) in versions)
            continue
        gateways = [subnet.gateway for subnet in net.subnets if subnet.gateway is not None]
        for version in versions:
            yield Question(source.id, OUTSIDES[4 if version == 4 else 16], PORT)
            own = [str(gateway) for gateway in gateways if gateway.version == version]
            for to in [*own, *(twin.underlay(host, version) for host in HOSTS)]:
                yield from (Question(source.id, to, port) for port in (*PUBLISHED, UNPUBLISHED))


def _of_hosts(twin: Twin) -> Iterator[Question]:
    for host in HOSTS:
        for target in _endpoints(twin):
            yield from (Question(host, str(address), PORT) for address in target.addresses)
        for version in (4, 6):
            yield Question(host, OUTSIDES[4 if version == 4 else 16], PORT)
            for other in HOSTS:
                yield from (Question(host, twin.underlay(other, version), p) for p in (*PUBLISHED, UNPUBLISHED))
        yield from (Question(host, "127.0.0.1", port) for port in (*PUBLISHED, UNPUBLISHED))


def _of_others(twin: Twin) -> Iterator[Question]:
    for host in HOSTS:
        for version in (4, 6):
            to = twin.underlay(host, version)
            yield from (Question("outside", to, port) for port in (*PUBLISHED, UNPUBLISHED))
    for target in _endpoints(twin):
        net = twin.world.networks[target.network]
        if net.driver is Driver.TRANSPARENT:
            yield from (Question(f"wire-{net.uplink}", str(address), PORT) for address in target.addresses)
            continue
        mark = LED_ASTRAY + HOSTS.index(target.host)
        for address in target.addresses:
            yield Question("router", str(address), PORT, mark)


def is_answerable(twin: Twin, question: Question, seen: Seen) -> bool:
    """Whether the one who was reached knows a way back, in our surroundings."""
    if not seen.at or question.start == "router":
        return False
    net, target = _network_of(twin, question.start), _network_of(twin, seen.at.rpartition("/")[2])
    if question.start.startswith("wire-") or (net is not None and net is target):
        return True
    if target is not None and target.shim:
        # The shim has the underlay's family, and the wire knows no network of ours.
        return question.version == 4 and (net is None or net.masquerade)
    if question.start in HOSTS and target is not None and target.internal and target.driver is not Driver.ROUTED:
        return False  # they know no way to anything of a host but its address for names
    # Another host knows the way to a network that is not masqueraded as little.
    return net is None or net.masquerade or seen.at.partition("/")[0] == _host_of(twin, question.start)


def in_memory(twin: Twin, question: Question) -> Seen:
    fabric, to = twin.world.fabric, ip_address(question.to).packed
    start = question.start
    if start in HOSTS:
        outcome = fabric.from_host(start, to, port=question.port, protocol=UDP)
    elif start.startswith("wire-"):
        outcome = fabric.from_lan(start, to, port=question.port, protocol=UDP)
    elif start in ("outside", "router"):
        via = HOSTS[question.mark - LED_ASTRAY] if question.mark else ""
        outcome = fabric.from_outside(to, port=question.port, protocol=UDP, via=via)
    else:
        outcome = fabric.reaches(*twin.homes[start], to, port=question.port, protocol=UDP)
    if not isinstance(outcome, Path) or (outcome.at == "outside" and question.to not in OUTSIDES.values()):
        return Seen()
    # Whom nobody in memory knows: a physical network's machine, the router.
    source = "" if not outcome.source or start == "router" else str(ip_address(outcome.source))
    crossed = tuple(sorted({hop for hop in outcome.hops if hop in HOSTS} - {_host_of(twin, start)}))
    return Seen(outcome.at, source, outcome.port, crossed)


def on_linux(twin: Twin, question: Question, answer: Answer, like: Seen) -> Seen:
    """`like`: what the fake saw; who is not known there is not compared."""
    own = {twin.underlay(host, version) for host in HOSTS for version in (4, 6)}
    arrivals = [a for a in answer.arrivals if a.at != "router" and not (a.at == "outside" and a.source not in own)]
    assert len(arrivals) <= 1, (question, arrivals)
    if not arrivals:
        return Seen()
    at, source, port = arrivals[0]
    crossed = tuple(sorted(answer.brought_to - {_host_of(twin, question.start)}))
    return Seen(_as_in_memory(twin, at), source if like.source else "", port, crossed)


def _network_of(twin: Twin, endpoint_id: str) -> Network | None:
    return next((twin.world.networks[n] for n, records in twin.world.endpoints.items() if endpoint_id in records), None)


def _host_of(twin: Twin, start: str) -> str:
    return start if start in HOSTS else twin.homes.get(start, ("", ""))[0]


def _as_in_memory(twin: Twin, place: str) -> str:
    if place in HOSTS or place == "outside":
        return place
    if place.startswith("wire-"):
        return f"{place}/machine"
    return "/".join(twin.homes[place])


def _version(address: bytes) -> int:
    return 4 if len(address) == 4 else 6
