"""The check finds every planted corruption, names it, repairs what it can, and says nothing about a healthy store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.store import Absent, Delete, Entry, Present, Put, Unchanged
from controller.ipam.check import check
from controller.ipam.check_endpoints import STUCK_AFTER_S
from controller.ipam.findings import Finding, Invariant, Repair
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind, SubnetClaim
from kvnet.marks import Cluster
from kvnet.model import Driver, Endpoint, Host, JournalChange, Network, Subnet

NOW = 10_000.0
Values = dict[str, bytes]


def network_values(n: int) -> Values:
    """Everything a network has in the store."""
    network_id = f"{n:012x}"
    cidrs = (ip_network(f"10.0.{n}.0/24"), ip_network(f"fd00:0:0:{n:x}::/64"))
    subnets = tuple(Subnet(cidr, cidr[1]) for cidr in cidrs)
    network = Network(network_id, f"net{n}", Driver.OVERLAY, subnets, NOW, vni=2**20 + n)
    return {
        keys.network(network_id): codec.encode(network),
        keys.name(network.name): network_id.encode(),
        keys.vni(2**20 + n): network_id.encode(),
        **{keys.subnet(cidr): codec.encode(SubnetClaim(network_id)) for cidr in cidrs},
    }


def endpoint_values(n: int, e: int, host: str = "h1") -> Values:
    """Everything an endpoint has in the store."""
    network_id, endpoint_id = f"{n:012x}", f"e{n}-{e}"
    addresses = (ip_address(f"10.0.{n}.{e}"), ip_address(f"fd00:0:0:{n:x}::{e:x}"))
    endpoint = Endpoint(endpoint_id, network_id, host, f"web{e}", addresses, "02:00:00:00:00:01", NOW)
    claim = AddressClaim(ClaimKind.ENDPOINT, endpoint_id, NOW, None, host)
    return {
        keys.endpoint(network_id, endpoint_id): codec.encode(endpoint),
        keys.local(host, endpoint_id): network_id.encode(),
        **{keys.address(network_id, address): codec.encode(claim) for address in addresses},
    }


def healthy() -> Values:
    tombstone = AddressClaim(ClaimKind.TOMBSTONE, "gone", NOW - 10, NOW + 50, "h1")
    reservation = AddressClaim(ClaimKind.RESERVATION, "printer", NOW)
    return {
        keys.CLUSTER: codec.encode(Cluster("c", NOW)),
        keys.host("h1"): codec.encode(Host("h1", ip_address("192.0.2.1"), 1500)),
        keys.host("h2"): codec.encode(Host("h2", ip_address("192.0.2.2"), 1500)),
        **network_values(1),
        **network_values(2),
        **endpoint_values(1, 7),
        **endpoint_values(1, 8, "h2"),
        **endpoint_values(2, 7),
        keys.address(f"{1:012x}", ip_address("10.0.1.9")): codec.encode(tombstone),
        keys.address(f"{1:012x}", ip_address("10.0.1.10")): codec.encode(reservation),
        "journal/floor": b'{"v":1,"trimmed":3}',
        "somebody/elses": b"\xff",
    }


def entries(values: Mapping[str, bytes]) -> list[Entry]:
    return [Entry(key, value, version) for version, (key, value) in enumerate(sorted(values.items()), 1)]


def found_in(values: Mapping[str, bytes]) -> list[Finding]:
    return check(entries(values), NOW)


def apply(repair: Repair, values: Values) -> Values:
    """The store's own rules for one commit."""
    versions = {entry.key: entry.version for entry in entries(values)}
    for one in repair.checks:
        match one:
            case Absent(key):
                assert key not in versions
            case Unchanged(key, version):
                assert versions.get(key) == version
            case Present(key):
                assert key in versions
    after = dict(values)
    for write in repair.writes:
        match write:
            case Put(key, value):
                after[key] = value
            case Delete(key):
                after.pop(key, None)
    return after


def journal(key: str, after: object, kind: str = "endpoint.created") -> bytes:
    change = JournalChange(kind, key, None, after)
    entry = {"at": NOW, "actor": "ann", "request_id": "r1", "source": "api", "changes": [codec.to_json(change)]}
    return json.dumps({"v": 1, "n": 1, "entries": [entry]}).encode()


N1, N2, N9 = (f"{n:012x}" for n in (1, 2, 9))
A7 = keys.address(N1, ip_address("10.0.1.7"))
E7 = keys.endpoint(N1, "e1-7")

Corruption = Callable[[Values], None]


def drop(key: str) -> Corruption:
    def corrupt(values: Values) -> None:
        del values[key]

    return corrupt


def put(key: str, value: bytes) -> Corruption:
    def corrupt(values: Values) -> None:
        values[key] = value

    return corrupt


def edit(key: str, **fields: object) -> Corruption:
    def corrupt(values: Values) -> None:
        values[key] = json.dumps({**json.loads(values[key]), **fields}).encode()

    return corrupt


REPAIRABLE: dict[str, tuple[Invariant, Corruption]] = {
    "a name that is not claimed": (Invariant.ONE_OWNER_OF_A_NAME, drop("names/net1")),
    "a name claimed by a network with another": (Invariant.ONE_OWNER_OF_A_NAME, put("names/old", N1.encode())),
    "a name that outlives its network": (Invariant.NOTHING_OUTLIVES_ITS_NETWORK, put("names/old", N9.encode())),
    "a VNI that is not claimed": (Invariant.ONE_OWNER_OF_A_NAME, drop(keys.vni(2**20 + 1))),
    "a VNI that outlives its network": (Invariant.NOTHING_OUTLIVES_ITS_NETWORK, put("vnis/1048999", N9.encode())),
    "a subnet that is not claimed": (Invariant.ONE_OWNER_OF_A_NAME, drop("subnets/10.0.1.0_24")),
    "a subnet claimed by a network with another": (
        Invariant.ONE_OWNER_OF_A_NAME,
        put("subnets/10.7.0.0_24", codec.encode(SubnetClaim(N1))),
    ),
    "a subnet that outlives its network": (
        Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
        put("subnets/10.9.0.0_24", codec.encode(SubnetClaim(N9))),
    ),
    "an address that is not claimed": (Invariant.ENDPOINTS_AND_ADDRESSES_AGREE, drop(A7)),
    "an address in use that is a tombstone": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(A7, codec.encode(AddressClaim(ClaimKind.TOMBSTONE, "e1-7", NOW, NOW + 60))),
    ),
    "an address claimed by an endpoint that does not exist": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(keys.address(N1, ip_address("10.0.1.77")), codec.encode(AddressClaim(ClaimKind.ENDPOINT, "ghost", NOW))),
    ),
    "an address claimed by an endpoint that has another": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(keys.address(N1, ip_address("10.0.1.77")), codec.encode(AddressClaim(ClaimKind.ENDPOINT, "e1-7", NOW))),
    ),
    "a tombstone that stays": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(
            keys.address(N1, ip_address("10.0.1.77")),
            codec.encode(AddressClaim(ClaimKind.TOMBSTONE, "x", NOW - 9000, NOW - STUCK_AFTER_S - 1)),
        ),
    ),
    "an address that outlives its network": (
        Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
        put(keys.address(N9, ip_address("10.0.9.7")), codec.encode(AddressClaim(ClaimKind.RESERVATION, "x", NOW))),
    ),
    "a host that is not told of its endpoint": (Invariant.ENDPOINTS_AND_ADDRESSES_AGREE, drop("local/h1/e1-7")),
    "a host that is told the wrong network": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put("local/h1/e1-7", N2.encode()),
    ),
    "a host that is told of another host's endpoint": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put("local/h2/e1-7", N1.encode()),
    ),
    "a host that is told of an endpoint that does not exist": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put("local/h1/ghost", N1.encode()),
    ),
    "a host that is told of an endpoint in a network that does not exist": (
        Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
        put("local/h1/ghost", N9.encode()),
    ),
}

FOR_A_PERSON: dict[str, tuple[Invariant, Corruption, str]] = {
    "two networks with one subnet": (
        Invariant.NO_OVERLAP,
        edit(keys.network(N2), subnets=[{"cidr": "10.0.1.128/25", "gateway": None, "range": None, "reserved": {}}]),
        "10.0.1.128/25 and 10.0.1.0/24 of networks net2 (000000000002) and net1 (000000000001) overlap",
    ),
    "two endpoints with one address": (
        Invariant.ONE_OWNER_OF_AN_ADDRESS,
        edit(keys.endpoint(N1, "e1-8"), addresses=["10.0.1.7", "fd00:0:0:1::8"]),
        "10.0.1.7 of network 000000000001 belongs to endpoints web7 (e1-7) on h1 and web8 (e1-8) on h2",
    ),
    "an endpoint on the gateway's address": (
        Invariant.ONE_OWNER_OF_AN_ADDRESS,
        edit(E7, addresses=["10.0.1.1"]),
        "endpoint web7 (e1-7) has 10.0.1.1, which is the gateway",
    ),
    "an endpoint on a reserved address": (
        Invariant.ONE_OWNER_OF_AN_ADDRESS,
        edit(E7, addresses=["10.0.1.10"]),
        "endpoint web7 (e1-7) has 10.0.1.10, which is claimed by reservation printer",
    ),
    "two networks with one name": (
        Invariant.ONE_OWNER_OF_A_NAME,
        edit(keys.network(N2), name="net1"),
        "name net1 belongs to networks 000000000001 and 000000000002",
    ),
    "two networks with one VNI": (
        Invariant.ONE_OWNER_OF_A_NAME,
        edit(keys.network(N2), vni=2**20 + 1),
        "VNI 1048577 belongs to networks 000000000001 and 000000000002",
    ),
    "an address outside of the subnets": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        edit(E7, addresses=["172.30.0.1"]),
        "endpoint web7 (e1-7) has 172.30.0.1, which is in no subnet of network net1",
    ),
    "an endpoint under another's key": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        edit(E7, id="e1-6"),
        "endpoints/000000000001/e1-7 holds endpoint e1-6 of network 000000000001",
    ),
    "an endpoint on a host that does not exist": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        drop("hosts/h2"),
        "endpoint web8 (e1-8) is on host h2, which does not exist",
    ),
    "a value that cannot be read": (
        Invariant.ACKNOWLEDGED_SURVIVES,
        put(E7, b"\x00not json"),
        "endpoints/000000000001/e1-7 cannot be read",
    ),
    "a key that cannot be read": (
        Invariant.ACKNOWLEDGED_SURVIVES,
        put("addresses/000000000001/ten", b"{}"),
        "addresses/000000000001/ten cannot be read",
    ),
    "a value of a newer schema": (
        Invariant.ACKNOWLEDGED_SURVIVES,
        edit(keys.network(N2), v=99),
        "networks/000000000002 cannot be read",
    ),
    "a journal that cannot be read": (
        Invariant.ACKNOWLEDGED_SURVIVES,
        put("journal/1", b"[]"),
        "journal/1 cannot be read",
    ),
    "a store without its sentinel": (Invariant.ACKNOWLEDGED_SURVIVES, drop(keys.CLUSTER), "meta/cluster is missing"),
    "an acknowledged endpoint that is gone": (
        Invariant.ACKNOWLEDGED_SURVIVES,
        put("journal/1", journal(keys.endpoint(N1, "lost"), {"id": "lost"})),
        "endpoints/000000000001/lost was acknowledged (endpoint.created, request r1) and is gone",
    ),
}


def test_a_healthy_store_has_no_findings() -> None:
    assert found_in(healthy()) == []


def test_an_empty_store_has_no_findings() -> None:
    assert check([], NOW) == []


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(2, 9), st.sampled_from(["h1", "h2"])), max_size=12))
def test_any_healthy_store_has_no_findings(endpoints: list[tuple[int, int, str]]) -> None:
    values = healthy()
    for n, e, host in {(n, e): (n, e, host) for n, e, host in endpoints}.values():
        if f"endpoints/{n:012x}/e{n}-{e}" not in values and e != 9:
            values |= network_values(n) | endpoint_values(n, e, host)
    assert found_in(values) == []


@pytest.mark.parametrize("what", REPAIRABLE)
def test_what_can_be_repaired_is_found_and_gone_after_its_repair(what: str) -> None:
    invariant, corrupt = REPAIRABLE[what]
    values = healthy()
    corrupt(values)
    first = found_in(values)
    assert invariant in {finding.invariant for finding in first}
    for _ in range(3):  # what a repair of one finding makes of another is seen by looking again
        for finding in found_in(values)[:1]:
            assert finding.repair is not None, finding
            values = apply(finding.repair, values)
    assert found_in(values) == []


@pytest.mark.parametrize("what", FOR_A_PERSON)
def test_what_only_a_person_can_decide_is_found_and_has_advice(what: str) -> None:
    invariant, corrupt, words = FOR_A_PERSON[what]
    values = healthy()
    corrupt(values)
    mine = [f for f in found_in(values) if f.invariant is invariant and words in f.detail]
    assert mine, found_in(values)
    assert mine[0].repair is None
    assert mine[0].fix
    assert set(mine[0].keys) <= {*values, keys.CLUSTER, "hosts/h2", *(k for k in mine[0].keys if "lost" in k)}


@given(st.sets(st.sampled_from(sorted(REPAIRABLE)), min_size=1, max_size=4))
def test_repairs_of_several_corruptions_never_remove_an_endpoint_and_end(whats: set[str]) -> None:
    values = healthy()
    for what in sorted(whats):
        try:
            REPAIRABLE[what][1](values)
        except KeyError:
            continue  # the other corruption took the key away
    endpoints = {key for key in values if key.startswith(keys.ENDPOINTS)}
    for _ in range(12):
        pending = [f.repair for f in found_in(values) if f.repair]
        if not pending:
            break
        values = apply(pending[0], values)
    assert found_in(values) == []
    assert endpoints <= values.keys()


def test_an_endpoint_that_was_deleted_is_not_missed() -> None:
    key = keys.endpoint(N1, "lost")
    values = healthy()
    values["journal/1"] = journal(key, {"id": "lost"})
    values["journal/2"] = journal(key, None, "endpoint.deleted")
    assert found_in(values) == []


def test_the_commits_order_the_journal_not_the_clocks_of_the_replicas() -> None:
    key = keys.endpoint(N1, "lost")
    created = Entry("journal/2", journal(key, {"id": "lost"}), 1000)
    deleted = Entry("journal/1", journal(key, None, "endpoint.deleted"), 1001)
    assert check([*entries(healthy()), deleted, created], NOW) == []


def test_everything_of_a_network_that_is_gone_can_be_removed() -> None:
    values = healthy()
    del values[keys.network(N2)]
    while pending := [f for f in found_in(values) if f.repair]:
        assert pending[0].invariant is Invariant.NOTHING_OUTLIVES_ITS_NETWORK
        values = apply(pending[0].repair, values)  # type: ignore[arg-type]
    assert found_in(values) == []
    assert not [key for key in values if N2 in key]
