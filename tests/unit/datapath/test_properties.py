"""What holds for every cluster, every damage and every order of events."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.desired import desired, merge
from datapath.fabric import Path
from datapath.objects import Announce
from datapath.packing import link_local, packed_mac
from datapath.plan import expected, plan
from datapath.sysctls import HOST_SYSCTLS
from kvnet.model import Endpoint
from tests.unit.datapath.clusters import (
    ADDRESSES_PER_NETWORK,
    World,
    assert_same,
    endpoint,
    host,
    namespace_of,
    network,
    worlds,
)
from tests.unit.datapath.damage import WITHIN_A_NETWORK, Damage, damages, inflict

relaxed = settings(deadline=None, max_examples=60)


@given(world=worlds())
@relaxed
def test_one_pass_builds_everything_and_the_second_finds_nothing(world: World) -> None:
    world.settle()


@given(world=worlds(), harm=st.lists(damages(), min_size=4, max_size=4))
@relaxed
def test_one_pass_repairs_any_damage_without_a_refused_or_useless_operation(
    world: World, harm: list[list[tuple[Damage, int]]]
) -> None:
    world.settle()
    for kernel, its_harm in zip(world.kernels.values(), harm, strict=False):
        inflict(kernel, its_harm)

    world.settle()


@given(before=worlds(), after=worlds())
@relaxed
def test_one_pass_leads_from_any_state_to_any_other(before: World, after: World) -> None:
    before.settle()
    for name, kernel in before.kernels.items():
        if name in after.kernels:
            for path in after.kernels[name].tables.namespaces:
                kernel.add_namespace(path)
            kernel.set_underlay(*after.kernels[name].underlay)
            after.kernels[name] = kernel

    after.settle()


@given(before=worlds(), after=worlds())
@relaxed
def test_a_plan_against_the_last_expected_state_does_what_one_against_the_kernel_does(
    before: World, after: World
) -> None:
    before.settle()
    for name in before.kernels.keys() & after.kernels.keys():
        kernel = before.kernels[name]
        if kernel.underlay != after.kernels[name].underlay:
            continue
        for path in after.kernels[name].tables.namespaces:
            kernel.add_namespace(path)
        last = expected(before.desired(name), kernel.state())
        wanted = after.desired(name)

        assert kernel.execute(plan(wanted, last).operations) == []

        assert_same(kernel.state(), expected(wanted, last))


@given(world=worlds())
@relaxed
def test_the_whole_is_the_sum_of_its_networks_and_what_belongs_to_the_host(world: World) -> None:
    for name in world.hosts:
        whole = world.desired(name)
        parts = merge(world.desired(name, network_id) for network_id in world.networks)
        assert whole.firewall is not None
        settings = {path: value for path, value in whole.sysctls.items() if path not in HOST_SYSCTLS}
        assert parts == replace(whole, firewall=None, sysctls=settings, is_forwarding=False)


@given(world=worlds(min_endpoints=2, plain=True))
@relaxed
def test_every_endpoint_reaches_its_network_and_nobody_else(world: World) -> None:
    world.settle()
    assert_connected(world)


@given(
    world=worlds(min_endpoints=2, plain=True),
    harm=st.lists(damages(), min_size=4, max_size=4),
)
@relaxed
def test_what_was_repaired_carries_packets_again(world: World, harm: list[list[tuple[Damage, int]]]) -> None:
    world.settle()
    for kernel, its_harm in zip(world.kernels.values(), harm, strict=False):
        inflict(kernel, its_harm)
    world.settle()
    assert_connected(world)


@given(world=worlds(), harm=damages(), choice=st.integers(0, 9))
@relaxed
def test_a_pass_of_one_network_repairs_what_was_damaged_in_it_and_touches_no_other(
    world: World, harm: list[tuple[Damage, int]], choice: int
) -> None:
    world.settle()
    kernel = world.kernels["h0"]
    inflict(kernel, [(damage, number) for damage, number in harm if damage in WITHIN_A_NETWORK])
    chosen = sorted(world.networks)[choice % len(world.networks)]
    others = {network_id: kernel.state(network_id) for network_id in world.networks if network_id != chosen}

    world.look_after("h0", chosen)

    assert world.look_after("h0", chosen) == 0
    assert {network_id: kernel.state(network_id) for network_id in others} == others


@given(world=worlds(plain=True), data=st.data())
@relaxed
def test_any_order_of_events_and_passes_ends_right(world: World, data: st.DataObject) -> None:
    hosts = sorted(world.hosts)
    for _ in range(data.draw(st.integers(1, 25))):
        event = data.draw(st.sampled_from(["add", "remove", "move", "renew", "harm", "pass", "part", "part"]))
        everyone = sorted((e for records in world.endpoints.values() for e in records.values()), key=lambda e: e.id)
        if event == "add":
            _add(world, data)
        elif event == "harm":
            damage = data.draw(st.sampled_from(WITHIN_A_NETWORK))
            inflict(world.kernels[data.draw(st.sampled_from(hosts))], [(damage, data.draw(st.integers(0, 10_000)))])
        elif event == "pass":
            world.look_after(data.draw(st.sampled_from(hosts)))
        elif event == "part":
            world.look_after(data.draw(st.sampled_from(hosts)), data.draw(st.sampled_from(sorted(world.networks))))
        elif everyone:
            _change(world, event, data.draw(st.sampled_from(everyone)), data.draw(st.sampled_from(hosts)))

    world.settle()
    assert_connected(world)


@given(world=worlds(min_endpoints=2, plain=True), data=st.data())
@relaxed
def test_a_new_mac_reaches_those_who_knew_the_old_one(world: World, data: st.DataObject) -> None:
    world.settle()
    assert_connected(world)  # now everybody has everybody in its cache
    chosen = data.draw(st.sampled_from(sorted(world.attached(), key=lambda e: e.id)))
    world.remove(chosen)
    number = int(chosen.name[1:])
    renewed = endpoint(world.networks[chosen.network], number, chosen.host, id=chosen.id + "-again", mac=0xABCDEF)
    world.add(renewed)

    world.settle()

    assert_connected(world, age=False, link_locals=False)


def _add(world: World, data: st.DataObject) -> None:
    place = world.networks[data.draw(st.sampled_from(sorted(world.networks)))]
    number = data.draw(st.integers(0, ADDRESSES_PER_NETWORK - 1))
    record = endpoint(place, number, data.draw(st.sampled_from(sorted(world.hosts))))
    taken = {address for other in world.endpoints[place.id].values() for address in other.addresses}
    if taken.isdisjoint(record.addresses):
        world.add(record)


def _change(world: World, event: str, record: Endpoint, to: str) -> None:
    if event == "remove":
        world.remove(record)
    elif event == "move":
        world.move(record, to)
    else:  # another workload gets its address
        world.remove(record)
        world.add(replace(record, mac=f"02:{len(record.id):02x}:" + record.mac[6:], id=record.id + "x"))


def assert_connected(world: World, *, age: bool = True, link_locals: bool = True) -> None:
    """All of a network reach each other by every address; nobody reaches another network."""
    if age:
        for kernel in world.kernels.values():
            kernel.age_caches()
    attached = world.attached()
    for source in attached:
        for target in attached:
            if source is target:
                continue
            addresses = [address.packed for address in target.addresses]
            if link_locals and source.network == target.network and world.networks[target.network].has_ipv6:
                addresses.append(link_local(packed_mac(target.mac)))
            for address in addresses:
                outcome = world.fabric.reaches(source.host, namespace_of(source), address)
                arrived = isinstance(outcome, Path) and outcome.at == f"{target.host}/{namespace_of(target)}"
                assert arrived == (source.network == target.network), (source.id, target.id, outcome)


def test_an_announcement_is_made_for_a_changed_mac_only() -> None:
    world = World()
    world.add_host(host(0))
    world.add_host(host(1))
    world.add_network(network(1))
    record = endpoint(world.networks["000000000001"], 1, "h1")
    world.add(endpoint(world.networks["000000000001"], 0, "h0"))
    world.add(record)
    world.settle()
    world.add(replace(record, mac="02:aa:aa:aa:aa:aa"))
    made = plan(desired(world.view("h0")), world.kernels["h0"].state())
    announced = [operation for operation in made.operations if isinstance(operation, Announce)]
    assert {o.neighbour.address for o in announced} == {address.packed for address in record.addresses}
