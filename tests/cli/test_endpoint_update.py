"""`kvnet endpoint update` against a real controller, and `create --reuse`."""

from __future__ import annotations

from typing import Any

from tests.cli.world import World


def shown(world: World, network: str, endpoint: str) -> Any:
    return world.ok("endpoint", "inspect", network, endpoint).data[0]


def test_names_and_labels_change_and_go(world: World) -> None:
    network = world.network()
    made = world.endpoint(network, "c1", labels={"old": "1", "a": "1"})
    update = ("endpoint", "update", network)

    names = ("--name", "web", "--hostname", "h", "--alias", "www", "--alias", "w", "--gateway-priority", "7")
    assert world.ok(*update, "c1", *names, "--label", "a=2", "--label", "old-").lines == [made["id"]]

    after = shown(world, network, "web")
    assert (after["hostname"], after["aliases"], after["labels"]) == ("h", ["www", "w"], {"a": "2"})
    assert after["gateway_priority"] == 7
    world.ok(*update, "web", "--hostname", "none", "--alias", "none")
    assert [shown(world, network, "web")[member] for member in ("hostname", "aliases")] == ["", []]


def test_ports_are_replaced_and_ended(world: World) -> None:
    network = world.network()
    world.endpoint(network, "c1", ports=[{"port": 80, "host_port": 18501}])
    update = ("endpoint", "update", network, "c1")

    told = world.ok(*update, "--publish", "127.0.0.1:18502:81/udp", "--dry-run")
    assert any("18502" in line for line in told.lines)
    data = world.ok(*update, "--publish", "127.0.0.1:18502:81/udp", "--output", "json").data
    port = {"port": 81, "protocol": "udp", "host_port": 18502, "host_address": "127.0.0.1"}
    assert data["ports"] == [port]
    world.ok(*update, "--publish", "none")
    assert shown(world, network, "c1")["ports"] == []


def test_an_address_changes_and_one_that_cools_down_is_taken_with_reuse(world: World) -> None:
    network = world.network("--subnet", "10.94.0.0/24", "--subnet", "fd94::/64")
    world.endpoint(network, "old", address="10.94.0.7")
    world.ok("endpoint", "rm", network, "old")
    create = ("endpoint", "create", network, "--host", "h1", "--address", "10.94.0.7", "--name")

    refused = world.run(*create, "new")
    made = world.ok(*create, "new", "--reuse").lines[0]
    world.ok("endpoint", "update", network, "new", "--ip6", "fd94::77")

    assert refused.code != 0
    assert "cooling down" in refused.err
    assert shown(world, network, made)["addresses"] == ["10.94.0.7", "fd94::77"]


def test_nothing_to_change_and_a_list_beside_none_are_usage_errors(world: World) -> None:
    network = world.network()
    world.endpoint(network, "c1")

    for options in ((), ("--reuse",), ("--publish", "none", "--publish", "80"), ("--alias", "a", "--alias", "none")):
        assert world.run("endpoint", "update", network, "c1", *options).code == 2, options


def test_an_old_version_changes_nothing(world: World) -> None:
    network = world.network()
    made = world.endpoint(network, "c1")
    version = str(made["version"])

    world.ok("endpoint", "update", network, "c1", "--name", "web", "--version", version)
    refused = world.run("endpoint", "update", network, made["id"], "--name", "late", "--version", version)

    assert refused.code != 0
    assert shown(world, network, made["id"])["name"] == "web"
