"""Who may reach whom, said as simply as an operator would say it; asked of the fake kernels packet by packet."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from datapath.fabric import OUTSIDE, Drop, Path
from kvnet.model import Driver, Endpoint, Network
from tests.unit.datapath.clusters import World, namespace_of

PORT = 8080
CROSSING = (Driver.OVERLAY, Driver.ROUTED)


def may_reach(world: World, source: Endpoint, target: Endpoint) -> bool | None:
    """None: nobody promised anything (a `bridge` network's peers on other hosts, say)."""
    one, other = world.networks[source.network], world.networks[target.network]
    same_host = source.host == target.host
    if one.id == other.id:
        return same_host if one.driver is Driver.BRIDGE and one.icc else one.icc or one.driver is Driver.TRANSPARENT
    if one.driver is Driver.TRANSPARENT or other.driver is Driver.TRANSPARENT:
        return None  # the physical network's own business
    if other.id not in one.peers:
        return False
    if same_host or (one.driver in CROSSING and other.driver in CROSSING):
        return True
    return None


def may_leave(of: Network) -> bool | None:
    if of.driver is Driver.TRANSPARENT:
        return None
    return not of.internal and of.masquerade


def assert_as_promised(world: World) -> None:
    for kernel in world.kernels.values():
        kernel.age_caches()
    attached = world.attached()
    for source in attached:
        for target in attached:
            promised = may_reach(world, source, target)
            if source is not target and promised is not None:
                families = {address.version for address in source.addresses}
                for address in (address for address in target.addresses if address.version in families):
                    outcome = world.fabric.reaches(source.host, namespace_of(source), address.packed)
                    assert is_at(outcome, target) == promised, (source.id, target.id, str(address), outcome)
        assert_leaves(world, source)


def assert_leaves(world: World, source: Endpoint) -> None:
    promised = may_leave(world.networks[source.network])
    for address in source.addresses:
        outside = OUTSIDE[len(address.packed)]
        outcome = world.fabric.reaches(source.host, namespace_of(source), outside)
        if promised is not None:
            assert (isinstance(outcome, Path) and outcome.at == "outside") == promised, (source.id, outcome)
        forged = world.fabric.from_outside(address.packed, via=source.host)
        assert isinstance(forged, Drop) or promised is None, (source.id, forged)


def published(world: World) -> Iterator[tuple[Endpoint, bytes, int]]:
    """The endpoint, its host's address of a family that it has, and the host's port."""
    for record in world.attached():
        underlay = world.hosts[record.host].underlay
        for port in record.ports:
            if any(address.version == underlay.version for address in record.addresses) and port.host_port:
                yield record, underlay.packed, port.host_port


def assert_published(world: World) -> None:
    """From outside, from every host itself, and from every workload that can leave its network."""
    for target, address, port in published(world):
        outcome = world.fabric.from_outside(address, port=port)
        assert is_at(outcome, target), outcome
        assert is_at(world.fabric.from_host(target.host, address, port=port), target)
        if ip_address(address).version == 4:
            outcome = world.fabric.from_host(target.host, b"\x7f\x00\x00\x01", port=port)
            assert is_at(outcome, target), outcome
        for source in world.attached():
            of = world.networks[source.network]
            if may_leave(of) and any(len(a.packed) == len(address) for a in source.addresses):
                outcome = world.fabric.reaches(source.host, namespace_of(source), address, port=port)
                assert is_at(outcome, target), (source.id, target.id, outcome)
            elif of.internal and of.driver is not Driver.TRANSPARENT:
                outcome = world.fabric.reaches(source.host, namespace_of(source), address, port=port)
                assert isinstance(outcome, Drop), (source.id, target.id, outcome)


def is_at(outcome: Path | Drop, target: Endpoint) -> bool:
    return isinstance(outcome, Path) and outcome.at == f"{target.host}/{namespace_of(target)}"
