"""The check of blocks and host ports: what is planted is found, what is safe is repaired, nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controller.ipam.check import check
from controller.ipam.findings import Finding, Invariant
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind, HeldPorts, PortHold, SubnetClaim
from kvnet.marks import Cluster
from kvnet.model import Block, Driver, Endpoint, Host, Network, PublishedPort, Subnet
from tests.unit.ipam.test_check import Corruption, Values, apply, drop, entries, put

NOW = 10_000.0
N1 = "000000000001"
CIDR = ip_network("10.0.1.0/24")
OURS, FREE = ip_network("10.0.1.0/26"), ip_network("10.0.1.64/26")
BLOCK, BUCKET = keys.block(N1, OURS), keys.ports("h1", "tcp", 8080)
E1 = keys.endpoint(N1, "e1")
NETWORK = Network(N1, "flat", Driver.ROUTED, (Subnet(CIDR),), NOW, bridge_name="br-flat")
ENDPOINT = Endpoint(
    "e1",
    N1,
    "h1",
    "web",
    (ip_address("10.0.1.2"),),
    "02:00:00:00:00:01",
    NOW,
    ports=(PublishedPort(80, "tcp", 8080), PublishedPort(53, "udp", 53, ip_address("192.0.2.1"))),
)


def held(*holds: PortHold) -> bytes:
    return codec.encode(HeldPorts(holds))


def block(cidr: str, host: str = "h1", network: str = N1) -> bytes:
    return codec.encode(Block(network, ip_network(cidr), host, NOW))


MINE = PortHold(8080, N1, "e1")


def healthy() -> Values:
    claim = AddressClaim(ClaimKind.ENDPOINT, "e1", NOW, None, "h1")
    return {
        keys.CLUSTER: codec.encode(Cluster("c", NOW)),
        **{keys.host(h): codec.encode(Host(h, ip_address("192.0.2.1"), 1500)) for h in ("h1", "h2")},
        keys.network(N1): codec.encode(NETWORK),
        keys.name("flat"): N1.encode(),
        keys.bridge("br-flat"): N1.encode(),
        keys.subnet(CIDR): codec.encode(SubnetClaim(N1)),
        E1: codec.encode(ENDPOINT),
        keys.local("h1", "e1"): N1.encode(),
        keys.address(N1, ip_address("10.0.1.2")): codec.encode(claim),
        BLOCK: block("10.0.1.0/26"),
        keys.block(N1, FREE): block("10.0.1.64/26", "h2"),
        BUCKET: held(MINE),
        keys.ports("h1", "udp", 53): held(PortHold(53, N1, "e1", ip_address("192.0.2.1"))),
    }


def found_in(values: Values) -> list[Finding]:
    return check(entries(values), NOW)


REPAIRABLE: dict[str, tuple[Invariant, Corruption]] = {
    "a block of a network that is gone": (
        Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
        put(keys.block("0" * 12, ip_network("10.5.0.0/26")), block("10.5.0.0/26", network="0" * 12)),
    ),
    "a block of a host that is gone": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(keys.block(N1, ip_network("10.0.1.128/26")), block("10.0.1.128/26", "h9")),
    ),
    "an endpoint whose block nobody has": (Invariant.ENDPOINTS_AND_ADDRESSES_AGREE, drop(BLOCK)),
    "a port held by an endpoint that is gone": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(BUCKET, held(MINE, PortHold(8081, N1, "gone"))),
    ),
    "a port held by an endpoint that does not publish it": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(BUCKET, held(MINE, PortHold(8081, N1, "e1"))),
    ),
    "a port held on another host than the endpoint's": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(keys.ports("h2", "tcp", 8080), held(MINE)),
    ),
    "a port that is not held": (Invariant.ENDPOINTS_AND_ADDRESSES_AGREE, drop(BUCKET)),
    "a bridge name that is not claimed": (Invariant.ONE_OWNER_OF_A_NAME, drop(keys.bridge("br-flat"))),
    "a bridge name of a network with another": (Invariant.ONE_OWNER_OF_A_NAME, put(keys.bridge("br-x"), N1.encode())),
}
FOR_A_PERSON: dict[str, tuple[Invariant, Corruption, str]] = {
    "blocks of two sizes that overlap": (
        Invariant.NO_OVERLAP,
        put(keys.block(N1, ip_network("10.0.1.0/27")), block("10.0.1.0/27", "h2")),
        "overlap",
    ),
    "an endpoint in another host's block": (
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        put(BLOCK, block("10.0.1.0/26", "h2")),
        "which is host h2's",
    ),
    "a port that two endpoints hold": (
        Invariant.ONE_OWNER_OF_A_NAME,
        put(BUCKET, held(MINE, PortHold(8080, N1, "gone", ip_address("192.0.2.1")))),
        "is held by endpoints e1 and gone",
    ),
    "a port that another holds": (
        Invariant.ONE_OWNER_OF_A_NAME,
        put(BUCKET, held(replace(MINE, endpoint="gone"))),
        "endpoint gone's",
    ),
}


def test_a_healthy_store_has_no_findings() -> None:
    assert found_in(healthy()) == []


@pytest.mark.parametrize("what", REPAIRABLE)
def test_what_can_be_repaired_is_found_and_gone_after_its_repair(what: str) -> None:
    invariant, corrupt = REPAIRABLE[what]
    values = healthy()
    corrupt(values)
    first = found_in(values)
    assert invariant in {finding.invariant for finding in first}
    for _ in range(3):
        for finding in found_in(values)[:1]:
            assert finding.repair is not None, finding
            values = apply(finding.repair, values)
    assert found_in(values) == []
    assert E1 in values


@pytest.mark.parametrize("what", FOR_A_PERSON)
def test_what_only_a_person_can_decide_is_found_and_has_advice(what: str) -> None:
    invariant, corrupt, words = FOR_A_PERSON[what]
    values = healthy()
    corrupt(values)
    mine = [f for f in found_in(values) if f.invariant is invariant and words in f.detail]
    assert mine, found_in(values)
    assert mine[0].repair is None
    assert mine[0].fix


def test_what_cannot_be_read_is_told_and_nothing_is_concluded_from_it() -> None:
    values = healthy()
    values[E1] = b"{"
    assert [f.invariant for f in found_in(values)] == [Invariant.ACKNOWLEDGED_SURVIVES]
