"""A living network changes: what hosts can take over, never against its endpoints or other networks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from backends.memory import MemoryStore
from backends.store import Put, Snapshot
from controller.changing import NetworkPatch, SubnetPatch
from controller.cluster import Cluster
from controller.requests import NetworkRequest, SubnetRequest
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import (
    AddressTaken,
    BridgeTaken,
    Immutable,
    Invalid,
    NetworkInUse,
    NotFound,
    PreconditionFailed,
    SubnetTaken,
)
from kvnet.model import Network
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio
MTU, NAME = "com.docker.network.driver.mtu", "com.docker.network.bridge.name"


def patch(**given: Any) -> NetworkPatch:
    return NetworkPatch(given)


def subnets(*cidrs: str, **given: Any) -> NetworkPatch:
    return NetworkPatch(subnets=tuple(SubnetPatch(cidr, given) for cidr in cidrs))


async def stored_subnets(store: MemoryStore) -> set[str]:
    return {str(keys.parse_subnet(e.key)) for e in (await store.list(keys.SUBNETS)).entries}


async def test_what_changes_is_journalled_and_the_same_patch_again_changes_nothing(
    cluster: Cluster, store: MemoryStore
) -> None:
    made = await cluster.networks.create(NetworkRequest("n", labels={"a": "1", "b": "2"}), ME)

    first = await cluster.updates.update("n", patch(labels={"a": None, "c": "3"}, mtu=1400, icc=False), ME)
    again = await cluster.updates.update("n", patch(labels={"a": None, "c": "3"}, mtu=1400, icc=False), ME)

    assert (first.value.labels, first.value.mtu, first.value.icc) == ({"b": "2", "c": "3"}, 1400, False)
    assert again == first
    assert first.version > made.version
    journal = b"".join(e.value for e in (await store.list(keys.JOURNAL)).entries)
    assert journal.count(b'"network.updated"') == 1


async def test_everything_that_cannot_change_is_named_with_its_reason(cluster: Cluster) -> None:
    await cluster.networks.create(NetworkRequest("n"), ME)

    with pytest.raises(Immutable) as refusal:
        await cluster.updates.update("n", patch(driver="bridge", internal=True, mtu=1400, name="n"), ME)

    assert {e.pointer for e in refusal.value.errors} == {"/driver", "/internal"}
    assert all("cannot change" in e.detail and ":" in e.detail for e in refusal.value.errors)
    assert cluster.networks.get("n").value.mtu is None


async def test_a_docker_option_and_its_field_change_together(cluster: Cluster) -> None:
    await cluster.networks.create(NetworkRequest("n", options={MTU: "1400", "mine": "x"}), ME)

    by_field = (await cluster.updates.update("n", patch(mtu=1300), ME)).value
    by_option = (await cluster.updates.update("n", patch(options={MTU: "1350"}), ME)).value
    taken_away = (await cluster.updates.update("n", patch(options={MTU: None}), ME)).value

    assert (by_field.mtu, by_field.options[MTU]) == (1300, "1300")
    assert (by_option.mtu, by_option.options[MTU]) == (1350, "1350")
    assert (taken_away.mtu, taken_away.options) == (None, {"mine": "x"})


async def test_an_option_and_a_field_that_contradict_are_refused(cluster: Cluster) -> None:
    await cluster.networks.create(NetworkRequest("n"), ME)

    with pytest.raises(Invalid) as refusal:
        await cluster.updates.update("n", patch(mtu=1300, options={MTU: "1400"}), ME)

    assert [e.pointer for e in refusal.value.errors] == [f"/options/{MTU}"]


async def test_an_option_that_names_the_bridge_cannot_change(cluster: Cluster) -> None:
    await cluster.networks.create(NetworkRequest("n", driver="bridge", options={NAME: "br-a"}), ME)

    with pytest.raises(Immutable) as refusal:
        await cluster.updates.update("n", patch(options={NAME: "br-b"}), ME)

    assert [e.pointer for e in refusal.value.errors] == [f"/options/{NAME}"]


async def test_a_subnet_grows_around_its_endpoints(cluster: Cluster, store: MemoryStore) -> None:
    await add_host(store, "h1")
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)
    old = await cluster.endpoints.create("n", endpoint("a"), ME)

    grown = (await cluster.updates.update("n", subnets("10.1.0.0/23"), ME)).value
    new = await cluster.endpoints.create("n", endpoint("b"), ME)

    assert [str(s.cidr) for s in grown.subnets] == ["10.1.0.0/23"]
    assert str(grown.subnets[0].gateway) == "10.1.0.1"
    assert new.value.address not in (None, old.value.address)
    assert await stored_subnets(store) == {"10.1.0.0/23"}
    assert (await cluster.ipam.check()).findings == ()


async def test_growing_into_another_network_is_refused_with_its_name(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)
    await cluster.networks.create(network("other", "10.1.1.0/24"), ME)

    with pytest.raises(SubnetTaken, match="other"):
        await cluster.updates.update("n", subnets("10.1.0.0/23"), ME)

    assert await stored_subnets(store) == {"10.1.0.0/24", "10.1.1.0/24"}


async def test_a_subnet_is_added_and_removed_while_it_is_unused(cluster: Cluster, store: MemoryStore) -> None:
    await add_host(store, "h1")
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)
    old = await cluster.endpoints.create("n", endpoint("a"), ME)

    await cluster.updates.update("n", subnets("10.1.0.0/24", "fd00:1::/64"), ME)
    new = await cluster.endpoints.create("n", endpoint("b"), ME)
    with pytest.raises(NetworkInUse, match="endpoint b on h1"):
        await cluster.updates.update("n", subnets("10.1.0.0/24"), ME)
    assert await stored_subnets(store) == {"10.1.0.0/24", "fd00:1::/64"}
    await cluster.endpoints.delete("n", new.value.id, ME)
    after = (await cluster.updates.update("n", subnets("10.1.0.0/24"), ME)).value

    assert (old.value.address6, new.value.address6 is not None) == (None, True)
    assert len(after.subnets) == 1
    assert await stored_subnets(store) == {"10.1.0.0/24"}
    assert (await cluster.ipam.check()).findings == ()


async def test_a_subnet_is_cut_from_a_pool(cluster: Cluster) -> None:
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)
    wanted = (SubnetPatch("10.1.0.0/24"), SubnetPatch(None, pool="default"))

    after = (await cluster.updates.update("n", NetworkPatch(subnets=wanted), ME)).value

    assert len(after.subnets) == 2
    assert all(s.gateway is not None for s in after.subnets)


async def test_a_subnet_never_shrinks_and_never_changes_its_gateway(cluster: Cluster) -> None:
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)

    with pytest.raises(Immutable, match="shrink"):
        await cluster.updates.update("n", subnets("10.1.0.0/25"), ME)
    with pytest.raises(Immutable, match="route over it"):
        await cluster.updates.update("n", subnets("10.1.0.0/24", gateway="10.1.0.9"), ME)


async def test_the_last_subnet_stays(cluster: Cluster) -> None:
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)

    with pytest.raises(Invalid, match="at least one subnet"):
        await cluster.updates.update("n", NetworkPatch(subnets=()), ME)


async def test_an_address_that_an_endpoint_has_cannot_be_reserved(cluster: Cluster, store: MemoryStore) -> None:
    await add_host(store, "h1")
    await cluster.networks.create(network("n", "10.1.0.0/24"), ME)
    has = (await cluster.endpoints.create("n", endpoint("a"), ME)).value.address

    with pytest.raises(AddressTaken, match=str(has)):
        await cluster.updates.update("n", subnets("10.1.0.0/24", reserved={"printer": str(has)}), ME)
    after = await cluster.updates.update("n", subnets("10.1.0.0/24", reserved={"printer": "10.1.0.77"}), ME)

    assert {n: str(a) for n, a in after.value.subnets[0].reserved.items()} == {"printer": "10.1.0.77"}


async def test_a_version_that_is_not_the_current_one_is_refused(cluster: Cluster) -> None:
    made = await cluster.networks.create(NetworkRequest("n"), ME)
    after = await cluster.updates.update("n", patch(mtu=1400), ME, made.version)

    with pytest.raises(PreconditionFailed) as refusal:
        await cluster.updates.update("n", patch(mtu=1300), ME, made.version)

    assert refusal.value.context["version"] == after.version


async def test_two_patches_at_once_are_both_made(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, seed=1) as one, opened(store, time, seed=2) as other:
        await one.networks.create(NetworkRequest("n"), ME)

        await asyncio.gather(
            *(
                replica.updates.update("n", patch(labels={f"k{i}": "v"}), ME)
                for i, replica in enumerate((one, other) * 6)
            )
        )

        found = await one.networks.find(one.networks.get("n").value.id)
        assert found is not None
        assert found.value.labels == {f"k{i}": "v" for i in range(12)}


async def test_endpoints_that_race_with_the_removal_of_their_subnet_never_stand_outside(
    store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h1")
    async with opened(store, time, seed=1) as one, opened(store, time, seed=2) as other:
        await one.networks.create(network("n", "10.1.0.0/24", "10.2.0.0/24"), ME)
        removal = one.updates.update("n", subnets("10.1.0.0/24"), ME)
        creations = (
            other.endpoints.create("n", replace(endpoint(f"e{i}"), address=f"10.2.0.{i + 9}"), ME) for i in range(8)
        )

        await asyncio.gather(removal, *creations, return_exceptions=True)

        assert (await one.ipam.check()).findings == ()


class Crowded(MemoryStore):
    """An endpoint is there when the removed subnet is looked through, and the network changes before it is put back."""

    looks = 0

    async def list(self, prefix: str) -> Snapshot:
        if prefix.startswith(keys.ADDRESSES) and prefix != keys.ADDRESSES:
            self.looks += 1
            if self.looks == 2:
                network_id = prefix.removeprefix(keys.ADDRESSES).rstrip("/")
                claim = AddressClaim(ClaimKind.ENDPOINT, "e", 0.0, None, "h1")
                entry = await self.get(keys.network(network_id))
                assert entry is not None
                labelled = replace(codec.decode(Network, entry.value), labels={"by": "another"})
                there = Put(keys.address(network_id, ip_address("10.2.0.9")), codec.encode(claim))
                await self.commit([], [there, Put(entry.key, codec.encode(labelled))])
        return await super().list(prefix)


async def test_a_subnet_that_is_used_after_all_is_put_back_whatever_else_changes_meanwhile(time: FakeTime) -> None:
    store = Crowded()
    async with opened(store, time) as one:
        made = await one.networks.create(network("n", "10.1.0.0/24", "10.2.0.0/24"), ME)

        with pytest.raises(NetworkInUse):
            await one.updates.update("n", subnets("10.1.0.0/24"), ME)

        found = await one.networks.find(made.value.id)
        assert found is not None
        assert [str(s.cidr) for s in found.value.subnets] == ["10.1.0.0/24", "10.2.0.0/24"]
        assert found.value.labels == {"by": "another"}


async def test_of_two_networks_with_one_bridge_name_one_wins(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, seed=1) as one, opened(store, time, seed=2) as other:
        outcomes = await asyncio.gather(
            *(
                replica.networks.create(NetworkRequest(name, options={NAME: "br-app"}, driver="bridge"), ME)
                for replica, name in ((one, "a"), (other, "b"))
            ),
            return_exceptions=True,
        )

    assert sorted(type(o).__name__ for o in outcomes) == ["BridgeTaken", "Versioned"]
    assert any(isinstance(o, BridgeTaken) and ("network a" in o.detail or "network b" in o.detail) for o in outcomes)


async def test_a_bridge_name_is_free_again_when_its_network_is_gone(cluster: Cluster) -> None:
    await cluster.networks.create(NetworkRequest("a", options={NAME: "br-app"}, driver="bridge"), ME)
    await cluster.networks.delete("a", ME)

    await cluster.networks.create(NetworkRequest("b", options={NAME: "br-app"}, driver="bridge"), ME)


async def test_an_uplink_that_is_put_into_a_bridge_is_of_one_network(cluster: Cluster) -> None:
    def asked(name: str, cidr: str) -> NetworkRequest:
        made = NetworkRequest(name, driver="transparent", subnets=(SubnetRequest(cidr),))
        return replace(made, features=replace(made.features, uplink="eth1", uplink_mode="bridge"))

    await cluster.networks.create(asked("a", "10.8.0.0/24"), ME)
    with pytest.raises(BridgeTaken, match="network a"):
        await cluster.networks.create(asked("b", "10.9.0.0/24"), ME)

    assert (await cluster.ipam.check()).findings == ()


async def peers_of(cluster: Cluster, name: str) -> tuple[str, ...]:
    found: Network = cluster.networks.get(name).value
    return found.peers


async def test_peers_list_each_other_and_repeating_changes_nothing(cluster: Cluster) -> None:
    ids = [(await cluster.networks.create(NetworkRequest(n), ME)).value.id for n in ("a", "b")]

    made, is_new = await cluster.peering.peer("a", "b", ME)
    again, is_new_again = await cluster.peering.peer("b", "a", ME)

    assert (is_new, is_new_again, made.version) == (True, False, again.version)
    assert (await peers_of(cluster, "a"), await peers_of(cluster, "b")) == ((ids[1],), (ids[0],))
    await cluster.peering.unpeer("b", "a", ME)
    await cluster.peering.unpeer("b", "a", ME)
    assert (await peers_of(cluster, "a"), await peers_of(cluster, "b")) == ((), ())


@pytest.mark.parametrize(
    "other",
    [
        NetworkRequest("b", internal=True),
        NetworkRequest("b", driver="transparent", subnets=(SubnetRequest("10.9.0.0/24"),)),
    ],
    ids=["internal", "transparent"],
)
async def test_what_cannot_be_peered_says_why(cluster: Cluster, other: NetworkRequest) -> None:
    if other.driver == "transparent":
        other = replace(other, features=replace(other.features, uplink="eth1"))
    await cluster.networks.create(NetworkRequest("a"), ME)
    await cluster.networks.create(other, ME)

    with pytest.raises(Invalid, match=r"internal|transparent"):
        await cluster.peering.peer("a", "b", ME)
    with pytest.raises(Invalid, match="own peer"):
        await cluster.peering.peer("a", "a", ME)
    with pytest.raises(NotFound):
        await cluster.peering.peer("a", "nowhere", ME)


@pytest.mark.parametrize("count", [1, 40])
async def test_a_network_that_is_deleted_leaves_its_peers(cluster: Cluster, count: int) -> None:
    await cluster.networks.create(NetworkRequest("a"), ME)
    for i in range(count):
        await cluster.networks.create(NetworkRequest(f"b{i}"), ME)
        await cluster.peering.peer("a", f"b{i}", ME)

    await cluster.networks.delete("a", ME)

    assert {await peers_of(cluster, f"b{i}") for i in range(count)} == {()}
    assert (await cluster.ipam.check()).findings == ()


async def test_the_physical_subnet_of_a_transparent_network_is_no_overlap(cluster: Cluster, store: MemoryStore) -> None:
    from backends.store import Put
    from kvnet import codec
    from kvnet.model import Inventory, UsedRange

    used = (
        UsedRange(ip_network("10.9.0.0/24"), "address dev eth1"),
        UsedRange(ip_network("10.8.0.0/24"), "route dev eth0"),
    )
    revision = await store.commit([], [Put(keys.inventory("h1"), codec.encode(Inventory("h1", used)))])
    await cluster._state.inventory.mirror.until(revision, 5.0)

    def asked(name: str, cidr: str) -> NetworkRequest:
        made = NetworkRequest(name, driver="transparent", subnets=(SubnetRequest(cidr),))
        return replace(made, features=replace(made.features, uplink="eth1"))

    with pytest.raises(SubnetTaken, match="h1"):
        await cluster.networks.create(asked("elsewhere", "10.8.0.0/24"), ME)
    await cluster.networks.create(asked("lan", "10.9.0.0/24"), ME)
    with pytest.raises(SubnetTaken, match="lan"):
        await cluster.networks.create(asked("lan2", "10.9.0.0/24"), ME)


@pytest.mark.parametrize(("small", "large"), [("10.7.0.64/27", "10.7.0.0/24"), ("10.7.1.0/24", "10.7.0.0/23")])
async def test_a_routed_network_grows_around_the_blocks_of_its_hosts(
    cluster: Cluster, store: MemoryStore, small: str, large: str
) -> None:
    for host in ("h1", "h2"):
        await add_host(store, host)
    await cluster.networks.create(NetworkRequest("r", driver="routed", subnets=(SubnetRequest(small),)), ME)
    old = await cluster.endpoints.create("r", endpoint("a"), ME)

    await cluster.updates.update("r", subnets(large), ME)
    new = await cluster.endpoints.create("r", replace(endpoint("b"), host="h2"), ME)

    assert old.value.address != new.value.address
    assert (await cluster.ipam.check()).findings == ()
