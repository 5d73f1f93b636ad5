"""Property: whatever endpoints are made, changed and deleted, nothing ever has two owners or none."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.memory import MemoryStore
from controller.cluster import Cluster
from controller.endpoint_patching import EndpointPatch
from controller.requests import PortRequest
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind, HeldPorts, PortHold
from kvnet.errors import KvnetError
from kvnet.model import Endpoint
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

NETWORKS = ("plain", "routed")
SUBNETS = {"plain": ("10.7.0.0/28", "fd07::/120"), "routed": ("10.8.0.0/24",)}
PREFIXES = {"plain": ("10.7.0.", "fd07::"), "routed": ("10.8.0.", "")}
NAMES = ("a", "b", "c", "d")

port = st.builds(
    PortRequest,
    st.integers(80, 83),
    protocol=st.sampled_from(["tcp", "udp"]),
    host_port=st.none() | st.integers(8000, 8004),
    host_address=st.none() | st.sampled_from(["127.0.0.1", "192.0.2.1"]),
)
ports = st.lists(port, max_size=3).map(tuple)
# The last part of the address that is asked for, of IPv4 and of IPv6.
numbers = st.tuples(st.none() | st.integers(0, 17), st.none() | st.integers(0, 9))
place = st.tuples(st.sampled_from(NETWORKS), st.sampled_from(NAMES))
step = st.one_of(
    st.tuples(st.just("create"), place, st.sampled_from(["h1", "h2"]), ports, numbers, st.booleans()),
    st.tuples(st.just("patch"), place, numbers, st.none() | ports, st.booleans()),
    st.tuples(st.just("patch"), place, numbers, st.none() | ports, st.booleans()),
    st.tuples(st.just("delete"), place),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 6.0, 61.0])),
)


def addresses(where: str, numbers: tuple[int | None, int | None]) -> dict[str, str]:
    first, second = numbers
    asked = {} if first is None else {"address": PREFIXES[where][0] + str(first)}
    return asked if second is None or where == "routed" else {**asked, "address6": PREFIXES[where][1] + f"{second:x}"}


async def take(cluster: Cluster, time: FakeTime, what: tuple[Any, ...]) -> None:
    """One step; what is refused is refused."""
    try:
        match what:
            case ("create", (where, name), host, asked, numbers_, reuse):
                wanted = addresses(where, numbers_)
                request = endpoint(name, host, id=f"{where}-{name}", ports=asked, reuse=reuse, **wanted)
                await cluster.endpoints.create(where, request, ME)
            case ("patch", (where, name), numbers_, asked, reuse):
                patch = EndpointPatch({**addresses(where, numbers_), "hostname": name}, asked, reuse)
                await cluster.endpoints.update(where, f"{where}-{name}", patch, ME)
            case ("delete", (where, name)):
                await cluster.endpoints.delete(where, f"{where}-{name}", ME)
            case ("wait", seconds):
                time.pass_by(seconds)
    except KvnetError:
        pass


async def owners(store: MemoryStore) -> tuple[Counter[Any], Counter[Any]]:
    """(what the endpoints say that they have, what the store has for them)"""
    said: Counter[Any] = Counter()
    kept: Counter[Any] = Counter()
    for entry in (await store.list(keys.ENDPOINTS)).entries:
        one = codec.decode(Endpoint, entry.value)
        said.update((one.network, address, one.id) for address in one.addresses)
        said.update(
            (one.host, p.protocol, PortHold(p.host_port or 0, one.network, one.id, p.host_address)) for p in one.ports
        )
    for entry in (await store.list(keys.ADDRESSES)).entries:
        claim, where = codec.decode(AddressClaim, entry.value), keys.parse_address(entry.key)
        if claim.kind is ClaimKind.ENDPOINT:
            kept[where.network, where.address, claim.holder] += 1
    for entry in (await store.list(keys.PORTS)).entries:
        bucket = keys.parse_ports(entry.key)
        kept.update((bucket.host, bucket.protocol, hold) for hold in codec.decode(HeldPorts, entry.value).held)
    return said, kept


async def lives(steps: list[tuple[Any, ...]], *, at_once: int) -> None:
    time = FakeTime()
    async with MemoryStore() as store:
        await add_host(store, "h1")
        await add_host(store, "h2", underlay="192.0.2.2")
        async with opened(store, time) as one, opened(store, time, seed=2) as two:
            for name, cidrs in SUBNETS.items():
                driver = "routed" if name == "routed" else "overlay"
                await one.networks.create(network(name, *cidrs, driver=driver), ME)
                for there in NAMES[:2]:
                    await one.endpoints.create(name, endpoint(there, id=f"{name}-{there}"), ME)
            for i in range(0, len(steps), at_once):
                some = steps[i : i + at_once]
                await asyncio.gather(*(take((one, two)[j % 2], time, what) for j, what in enumerate(some)))
                said, kept = await owners(store)
                assert said == kept
                assert max(kept.values(), default=1) == 1
            assert (await one.ipam.check()).findings == ()


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=25))
def test_one_after_the_other_nothing_has_two_owners_or_none(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(lives(steps, at_once=1))


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=40))
def test_many_at_once_on_two_controllers_nothing_has_two_owners_or_none(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(lives(steps, at_once=5))
