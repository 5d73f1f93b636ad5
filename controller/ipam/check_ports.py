"""I3 and I4 for host ports: none is held twice, and each is held for the endpoint that publishes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from backends.store import Absent, Check, Delete, Put, Unchanged, Write
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant, Repair
from controller.ipam.ports import clash, covers, hold_of, with_holds
from kvnet import codec, keys
from kvnet.claims import HeldPorts, PortHold
from kvnet.model import Endpoint, PublishedPort, Versioned


def ports(dump: Dump) -> Iterator[Finding]:
    for place, bucket in dump.ports.items():
        yield from _doubles(place, bucket.value)
        yield from _leaks(dump, place, bucket)
    yield from _unheld(dump)


def _key(place: keys.PortsKey) -> str:
    return keys.ports(*place)


def _doubles(place: keys.PortsKey, bucket: HeldPorts) -> Iterator[Finding]:
    for i, one in enumerate(bucket.held):
        for other in bucket.held[:i]:
            if one.port == other.port and covers(one.address, other.address):
                yield Finding(
                    Invariant.ONE_OWNER_OF_A_NAME,
                    f"port {one.port}/{place.protocol} of host {place.host} is held by endpoints "
                    f"{other.endpoint} and {one.endpoint}",
                    (_key(place),),
                    "detach one of them and attach it again",
                )


def _leaks(dump: Dump, place: keys.PortsKey, bucket: Versioned[HeldPorts]) -> Iterator[Finding]:
    """All that is wrong with a bucket is put right by one commit: it is one key."""
    wrong = [hold for hold in bucket.value.held if not _is_rightful(dump, place, hold)]
    if not wrong:
        return
    key = _key(place)
    left = HeldPorts(tuple(hold for hold in bucket.value.held if hold not in wrong))
    checks: dict[str, Check] = {key: Unchanged(key, bucket.version)}
    for hold in wrong:
        holder = dump.endpoints.get(keys.EndpointKey(hold.network, hold.endpoint))
        holder_key = keys.endpoint(hold.network, hold.endpoint)
        checks[holder_key] = Absent(holder_key) if holder is None else Unchanged(holder_key, holder.version)
    named = ", ".join(f"{h.port} for endpoint {h.endpoint}, which {_why(dump, place, h)}" for h in wrong)
    write: Write = Put(key, codec.encode(left)) if left.held else Delete(key)
    yield Finding(
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        f"of the {place.protocol} ports of host {place.host} are held: {named}",
        tuple(checks),
        "free them",
        Repair(tuple(checks.values()), (write,)),
    )


def _is_rightful(dump: Dump, place: keys.PortsKey, hold: PortHold) -> bool:
    if keys.endpoint(hold.network, hold.endpoint) in dump.unreadable:
        return True
    holder = dump.endpoints.get(keys.EndpointKey(hold.network, hold.endpoint))
    return holder is not None and holder.value.host == place.host and _lists(holder.value, place.protocol, hold)


def _lists(endpoint: Endpoint, protocol: str, hold: PortHold) -> bool:
    return any(
        (port.protocol, port.host_port, port.host_address) == (protocol, hold.port, hold.address)
        for port in endpoint.ports
    )


def _why(dump: Dump, place: keys.PortsKey, hold: PortHold) -> str:
    holder = dump.endpoints.get(keys.EndpointKey(hold.network, hold.endpoint))
    if holder is None:
        return "does not exist"
    return "does not publish it" if holder.value.host == place.host else f"is on {holder.value.host}"


def _unheld(dump: Dump) -> Iterator[Finding]:
    """Ports that endpoints publish and that are not held for them."""
    for where, endpoint in dump.endpoints.items():
        missing: dict[str, list[PublishedPort]] = defaultdict(list)
        for port in endpoint.value.ports:
            bucket = dump.ports.get(_place(endpoint.value.host, port))
            hold = hold_of(port, where.network, where.endpoint)
            if bucket is None or hold not in bucket.value.held:
                missing[keys.ports(endpoint.value.host, port.protocol, port.host_port or 0)].append(port)
        for key, published in missing.items():
            if key not in dump.unreadable:
                yield _not_held(dump, where, endpoint, key, published)


def _place(host: str, port: PublishedPort) -> keys.PortsKey:
    number = port.host_port or 0
    return keys.PortsKey(host, port.protocol, number - number % keys.PORTS_PER_BUCKET)


def _not_held(
    dump: Dump, where: keys.EndpointKey, endpoint: Versioned[Endpoint], key: str, published: Sequence[PublishedPort]
) -> Finding:
    one = endpoint.value
    bucket = dump.ports.get(keys.parse_ports(key))
    held = bucket.value if bucket is not None else HeldPorts()
    other = next((h for p in published if (h := clash(held.held, p.host_port or 0, p.host_address))), None)
    shown = ", ".join(f"{port.host_port}/{port.protocol}" for port in published)
    whose = "are not held for it" if other is None else f"are not its own: {other.port} is endpoint {other.endpoint}'s"
    seen: Check = Absent(key) if bucket is None else Unchanged(key, bucket.version)
    after = with_holds(held, (hold_of(port, where.network, where.endpoint) for port in published))
    return Finding(
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE if other is None else Invariant.ONE_OWNER_OF_A_NAME,
        f"endpoint {one.name} ({one.id}) publishes {shown} of host {one.host}, which {whose}",
        (key, keys.endpoint(*where)),
        "hold them for it" if other is None else "detach it and attach it again with other host ports",
        Repair((seen, Unchanged(keys.endpoint(*where), endpoint.version)), (Put(key, codec.encode(after)),))
        if other is None
        else None,
    )
