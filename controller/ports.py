"""The host ports of endpoints in the store: read from memory, claimed and given back in the endpoints' own commits.

64 ports of a host share a key, so that a range costs a transaction little; who changes one changes its key by
compare-and-swap. What this process wrote a moment ago counts at once, before the watch tells of it: the next commit to
the same key is built on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from backends.store import Absent, Check, Delete, Put, Store, Unchanged, Write
from controller.busy import Busy
from controller.ipam.ports import Crowded, Taken, Wish, choose_ports, first_of, hold_of, with_holds, without
from controller.tables import Table
from kvnet import codec, keys
from kvnet.claims import HeldPorts, PortHold
from kvnet.errors import Invalid, PortsExhausted, PortTaken
from kvnet.model import Endpoint, Network, PublishedPort, Versioned

# A transaction has room for so many keys of ports beside the rest of an endpoint.
MAX_BUCKETS = 16
# The keys that one change of an endpoint's ports may touch, those that it leaves included.
MAX_CHANGED_BUCKETS = 20


@dataclass(frozen=True, slots=True)
class Swap:
    """Buckets as a commit finds them and as it leaves them."""

    checks: tuple[Check, ...]
    writes: tuple[Write, ...]
    after: Mapping[str, HeldPorts | None]


NOTHING = Swap((), (), {})


class PortBook:
    def __init__(self, table: Table[HeldPorts], busy: Busy) -> None:
        self._table = table
        self.busy = busy
        self._noted: dict[str, tuple[int, Versioned[HeldPorts] | None]] = {}  # by key: as of which revision, what

    def held(self, key: str) -> Versioned[HeldPorts] | None:
        """The bucket under a key, as new as this process knows it."""
        noted = self._noted.get(key)
        if noted is not None and noted[0] > self._table.mirror.revision:
            return noted[1]
        self._noted.pop(key, None)
        return self._table.get(key.removeprefix(keys.PORTS))

    def note(self, revision: int, after: Mapping[str, HeldPorts | None]) -> None:
        """A commit of ours wrote this."""
        for key, value in after.items():
            self._noted[key] = (revision, None if value is None else Versioned(value, revision))

    async def look_again(self, store: Store, host: str) -> None:
        """See what others wrote: a commit lost its race.

        Raises:
            StoreError
        """
        snapshot = await store.list(keys.ports_of(host))
        there = {e.key: Versioned(codec.decode(HeldPorts, e.value), e.version) for e in snapshot.entries}
        known = {key for key in self._noted if key.startswith(keys.ports_of(host))}
        known.update(keys.PORTS + name for name in self._table.items if name.startswith(f"{host}/"))
        for key in there.keys() | known:
            self._noted[key] = (snapshot.revision, there.get(key))

    def choose(
        self, host: str, wishes: tuple[Wish, ...], rng: random.Random, instead_of: Endpoint | None = None
    ) -> tuple[PublishedPort, ...]:
        """What `instead_of` has counts as free.

        Raises:
            Taken, Crowded
        """

        def look(protocol: str, port: int) -> HeldPorts | None:
            key = keys.ports(host, protocol, port)
            if key in self.busy:
                return None
            found = self.held(key)
            held = found.value if found is not None else HeldPorts()
            return held if instead_of is None else without(held, instead_of.network, instead_of.id)

        return choose_ports(wishes, look, rng)

    def claiming(self, host: str, network: str, endpoint: str, ports: Iterable[PublishedPort]) -> Swap:
        by_key = _by_bucket(host, network, endpoint, ports)
        return self._swap(by_key, lambda key, held: with_holds(held, by_key[key]))

    def replacing(self, before: Endpoint, ports: Iterable[PublishedPort]) -> Swap:
        """All ports of an endpoint by others."""
        by_key = _by_bucket(before.host, before.network, before.id, ports)
        touched = by_key.keys() | buckets_of(before)
        if len(touched) > MAX_CHANGED_BUCKETS:
            raise Invalid.field(
                "/ports",
                f"the host ports that it has and those that it is to have lie in {len(touched)} different blocks of "
                f"{keys.PORTS_PER_BUCKET}; at most {MAX_CHANGED_BUCKETS} can change at once",
                "publish nothing first, and then the new ports",
            )

        def changed(key: str, held: HeldPorts) -> HeldPorts:
            return with_holds(without(held, before.network, before.id), by_key.get(key, ()))

        return self._swap(sorted(touched), changed)

    def giving_back(self, endpoint: Endpoint) -> Swap:
        touched = buckets_of(endpoint)
        return self._swap(touched, lambda _, held: without(held, endpoint.network, endpoint.id))

    def _swap(self, touched: Iterable[str], changed: Callable[[str, HeldPorts], HeldPorts]) -> Swap:
        checks: list[Check] = []
        writes: list[Write] = []
        after: dict[str, HeldPorts | None] = {}
        for key in touched:
            found = self.held(key)
            value = changed(key, found.value if found is not None else HeldPorts())
            # Checked also where nothing is to change: that the endpoint has no port there may be old news.
            checks.append(Absent(key) if found is None else Unchanged(key, found.version))
            if value == (found.value if found is not None else HeldPorts()):
                continue
            writes.append(Put(key, codec.encode(value)) if value.held else Delete(key))
            after[key] = value if value.held else None
        return Swap(tuple(checks), tuple(writes), after)


def _by_bucket(host: str, network: str, endpoint: str, ports: Iterable[PublishedPort]) -> dict[str, list[PortHold]]:
    by_key: dict[str, list[PortHold]] = {}
    for port in ports:
        key = keys.ports(host, port.protocol, port.host_port or 0)
        by_key.setdefault(key, []).append(hold_of(port, network, endpoint))
    if len(by_key) > MAX_BUCKETS:
        raise Invalid.field(
            "/ports",
            f"the host ports lie in {len(by_key)} different blocks of {keys.PORTS_PER_BUCKET}; "
            f"at most {MAX_BUCKETS} for one endpoint",
            "publish ranges instead of ports that lie far apart, or use a second endpoint",
        )
    return by_key


def buckets_of(endpoint: Endpoint) -> set[str]:
    return {keys.ports(endpoint.host, port.protocol, port.host_port or 0) for port in endpoint.ports}


def refusal(
    taken: Taken,
    host: str,
    network_of: Callable[[str], Network | None],
    endpoint_of: Callable[[str, str], Endpoint | None],
) -> PortTaken | PortsExhausted:
    """Whose the port is, and what to do."""
    wish, hold = taken.wish, taken.hold
    what = f"{wish.low}/{wish.protocol}" if wish.is_fixed else f"{wish.low}-{wish.high}/{wish.protocol}"
    if not wish.is_fixed:
        where = f"of {what}" if wish.low else f"for {wish.protocol} that is chosen freely"
        return PortsExhausted(
            f"host {host} has no free port left {where}",
            fix="give another range, remove endpoints that publish ports there, or use another host",
            context={"host": host, "protocol": wish.protocol, "low": wish.low or None, "high": wish.high or None},
        )
    if hold is None:
        return PortTaken(
            f"{what} of host {host} is published twice by this endpoint",
            fix="give each published port a host port of its own, or none and kvnet chooses",
            context={"host": host, "protocol": wish.protocol, "host_port": wish.low},
        )
    return _held(host, what, wish, hold, network_of(hold.network), endpoint_of(hold.network, hold.endpoint))


def _held(
    host: str, what: str, wish: Wish, hold: PortHold, network: Network | None, holder: Endpoint | None
) -> PortTaken:
    name, network_name = (holder.name if holder else hold.endpoint), (network.name if network else hold.network)
    where = "" if hold.address is None else f" on {hold.address}"
    return PortTaken(
        f"port {what} of host {host} is held{where} by endpoint {name} (id {hold.endpoint}) of network {network_name}",
        fix=f"choose another host port, or none and kvnet chooses; 'kvnet ipam show {host}:{what}' tells more",
        context={
            "host": host,
            "protocol": wish.protocol,
            "host_port": wish.low,
            "holder": {
                "endpoint": hold.endpoint,
                "name": name,
                "network": hold.network,
                "network_name": network_name,
                "host_address": None if hold.address is None else str(hold.address),
            },
        },
    )


__all__ = ["NOTHING", "Crowded", "PortBook", "Swap", "Taken", "buckets_of", "first_of", "refusal"]
