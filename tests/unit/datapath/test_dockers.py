"""Docker's own bridges beside ours: to whom our workloads may open a connection there is for Docker's rules to say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from datapath.desired import host_state
from datapath.fabric import Drop, Path
from datapath.names import is_of_docker
from datapath.objects import Firewall, Foreign, Gate, Uplink
from kvnet.model import Driver, PublishedPort
from tests.unit.datapath.clusters import World, endpoint, host, namespace_of, network

NET = network(1, driver=Driver.BRIDGE, ipv6=False)
OURS = replace(endpoint(NET, 0, "h0"), ports=(PublishedPort(8080, host_port=80),))
THEIRS = "br-0123456789ab"
BLOCK = (ip_address("172.18.0.1").packed, 16)
CONTAINER = ip_address("172.18.0.2").packed
GATE = Gate("nft", 4)


def world() -> World:
    """One host, whose FORWARD chain drops what it does not know; Docker's rules for its bridge are not in there."""
    made = World()
    made.add_host(host(0))
    made.add_network(NET)
    made.add(OURS)
    made.kernels["h0"].set_gate(GATE)
    made.settle()
    return made


def firewall(made: World) -> Firewall:
    found = made.kernels["h0"].tables.firewall
    assert found is not None
    return found


def asked(made: World) -> Path | Drop:
    return made.fabric.reaches("h0", namespace_of(OURS), CONTAINER)


def add_bridge(made: World, name: str) -> None:
    made.kernels["h0"].set_uplink(Uplink(name, 1500, up=True, is_bridge=True), lan="its ports", blocks=[BLOCK])
    made.fabric.machines["its ports"] = {CONTAINER: "container"}


@pytest.mark.parametrize("name", ["docker0", "docker_gwbridge", THEIRS])
def test_what_goes_to_a_bridge_of_dockers_bears_no_mark(name: str) -> None:
    made = world()
    add_bridge(made, name)
    made.settle()

    outcome = asked(made)

    assert isinstance(outcome, Drop)
    assert "FORWARD" in outcome.reason, "that is Docker's chain, where Docker's rules are asked"
    assert isinstance(made.fabric.reaches("h0", namespace_of(OURS), ip_address("203.0.113.9").packed), Path)


@pytest.mark.parametrize("name", ["br0", "br-lan", "br-0123456789AB", "br-0123456789abc", "br-0123456789a"])
def test_an_operators_bridge_is_a_way_out_like_any_other(name: str) -> None:
    made = world()
    add_bridge(made, name)
    made.settle()

    assert not is_of_docker(name)
    assert isinstance(asked(made), Path)


def test_a_bridge_is_known_by_its_kind_too_and_forgotten_when_it_is_gone() -> None:
    made = world()
    kernel = made.kernels["h0"]
    kernel.add_foreign(Foreign("br-cccccccccccc", "veth"))
    kernel.add_foreign(Foreign(THEIRS, "bridge"))
    made.settle()
    assert firewall(made).dockers == {THEIRS}

    kernel.remove_foreign(THEIRS)
    made.settle()
    assert firewall(made).dockers == set()


def test_a_bridge_that_a_network_stands_on_is_no_bridge_of_dockers() -> None:
    made = world()
    made.add_network(network(2, driver=Driver.TRANSPARENT, uplink=THEIRS))
    add_bridge(made, THEIRS)
    made.settle()

    assert THEIRS not in firewall(made).dockers


def test_where_no_network_is_nothing_of_it_is_known() -> None:
    made = world()
    made.kernels["h0"].add_foreign(Foreign(THEIRS, "bridge"))
    made.remove(OURS)

    assert host_state(made.view("h0")).firewall == Firewall()
