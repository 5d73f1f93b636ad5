"""`kvnet network update`, `peer` and `unpeer` against a real controller."""

from __future__ import annotations

from typing import Any

import pytest

from cli.change import ATTEMPTS
from kvnet.client import Client
from tests.cli.loading import SERVER, modules_loaded_by, tops
from tests.cli.shells import bash as completed
from tests.cli.world import World

DOCKER = "com.docker.network."


def shown(world: World, name: str) -> Any:
    return world.ok("network", "inspect", name).data[0]


def test_labels_are_set_and_taken_away(world: World) -> None:
    name = world.network("--label", "team=red", "--label", "old=1")

    assert world.ok("network", "update", name, "--label", "team=blue", "--label", "old-", "--label", "new").lines == [
        name
    ]

    assert shown(world, name)["labels"] == {"team": "blue", "new": ""}


def test_switches_and_values_change_and_go_back_to_the_default(world: World) -> None:
    name = world.network("--driver", "bridge")

    world.ok(
        *("network", "update", name, "--mtu", "1400", "--no-icc", "--no-masquerade"),
        *("--host-binding", "127.0.0.1", "--interface-prefix", "web"),
    )
    changed = shown(world, name)
    members = ("mtu", "icc", "masquerade", "host_binding", "interface_prefix")
    assert [changed[member] for member in members] == [1400, False, False, "127.0.0.1", "web"]

    world.ok(
        *("network", "update", name, "--mtu", "auto", "--icc", "--masquerade"),
        *("--host-binding", "none", "--interface-prefix", "none"),
    )
    assert [shown(world, name)[member] for member in members] == [None, True, True, None, None]


def test_an_option_of_dockers_changes_its_field_and_the_field_the_option(world: World) -> None:
    name = world.network("-o", f"{DOCKER}driver.mtu=1400", "-o", "mine=kept")

    world.ok("network", "update", name, "-o", f"{DOCKER}driver.mtu=1300")
    assert shown(world, name)["mtu"] == 1300
    world.ok("network", "update", name, "--mtu", "1290")
    assert shown(world, name)["options"] == {f"{DOCKER}driver.mtu": "1290", "mine": "kept"}
    world.ok("network", "update", name, "-o", f"{DOCKER}driver.mtu-", "-o", "mine-")
    assert (shown(world, name)["mtu"], shown(world, name)["options"]) == (None, {})


def test_a_subnet_grows_under_its_endpoints(world: World) -> None:
    name = world.network("--subnet", "10.70.0.0/24", "--aux-address", "printer=10.70.0.9")
    endpoint = world.endpoint(name, "c1")

    world.ok("network", "update", name, "--grow-subnet", "10.70.0.0/23", "--reserve", "scanner=10.70.1.9")

    [subnet] = shown(world, name)["subnets"]
    assert (subnet["cidr"], subnet["gateway"]) == ("10.70.0.0/23", "10.70.0.1")
    assert subnet["reserved"] == {"printer": "10.70.0.9", "scanner": "10.70.1.9"}
    assert world.ok("endpoint", "inspect", name, "c1").data[0]["address"] == endpoint["address"]
    assert world.run("network", "create", world.fresh(), "--subnet", "10.70.1.0/24").code == 4


def test_subnets_come_and_go(world: World) -> None:
    name = world.network("--subnet", "10.71.0.0/24")

    world.ok("network", "update", name, "--add-subnet", "fd71::/64", "--add-subnet-from", "default")
    first, second, third = (subnet["cidr"] for subnet in shown(world, name)["subnets"])
    assert (first, third) == ("10.71.0.0/24", "fd71::/64")
    assert second.startswith("10.")

    world.ok("network", "update", name, "--remove-subnet", second, "--ip-range", "10.71.0.128/25")
    assert [s["cidr"] for s in shown(world, name)["subnets"]] == ["10.71.0.0/24", "fd71::/64"]
    assert shown(world, name)["subnets"][0]["range"] == "10.71.0.128/25"
    world.ok("network", "update", name, "--ip-range", "10.71.0.0/24")
    assert shown(world, name)["subnets"][0]["range"] is None


def test_a_subnet_and_a_reservation_in_it_go_in_one_step(world: World) -> None:
    name = world.network("--subnet", "10.77.0.0/24", "--subnet", "10.78.0.0/24")
    world.ok("network", "update", name, "--reserve", "printer=10.78.0.9", "--reserve", "scanner=10.77.0.9")

    world.ok("network", "update", name, "--remove-subnet", "10.78.0.0/24", "--unreserve", "printer")

    [subnet] = shown(world, name)["subnets"]
    assert (subnet["cidr"], subnet["reserved"]) == ("10.77.0.0/24", {"scanner": "10.77.0.9"})


def test_a_subnet_in_use_stays_and_the_endpoint_is_named(world: World) -> None:
    name = world.network("--subnet", "10.72.0.0/24", "--subnet", "10.73.0.0/24")
    world.endpoint(name, "c1", address="10.73.0.7")

    outcome = world.run("network", "update", name, "--remove-subnet", "10.73.0.0/24")

    assert outcome.code == 4
    assert "10.73.0.7" in outcome.err
    assert len(shown(world, name)["subnets"]) == 2


def test_nothing_new_is_the_same_version(world: World) -> None:
    name = world.network("--label", "a=b")
    before = shown(world, name)

    world.ok("network", "update", name, "--label", "a=b", "--icc", "--label", "never-")

    assert shown(world, name) == before


def test_only_the_version_that_was_meant_is_changed(world: World) -> None:
    name = world.network()
    version = shown(world, name)["version"]

    changed = world.ok("network", "update", name, "--label", "a=1", "--version", str(version), "--output", "json").data
    assert (changed["labels"], changed["version"] > version) == ({"a": "1"}, True)
    for more in (("--label", "a=2"), ("--add-subnet", "fd74::/64")):
        outcome = world.run("network", "update", name, *more, "--version", str(version))
        assert outcome.code == 4, outcome
        assert str(changed["version"]) in outcome.err


def test_who_changes_the_subnets_at_the_same_moment_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is faster, again and again: what he added is still there afterwards."""
    name, read = world.network("--subnet", "10.75.0.0/24"), Client.get_network
    faster = iter([f"fd75:{n}::/64" for n in range(1, ATTEMPTS)])

    async def read_and_be_overtaken(client: Client, network: str) -> Any:
        found = await read(client, network)
        cidr = next(faster, None)
        if cidr:
            patch = {"subnets": [*({"cidr": s["cidr"]} for s in found["subnets"]), {"cidr": cidr}]}
            await client.update_network(network, patch)  # type: ignore[arg-type]
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Client, "get_network", read_and_be_overtaken)
        world.ok("network", "update", name, "--add-subnet", "10.76.0.0/24")

    cidrs = {subnet["cidr"] for subnet in shown(world, name)["subnets"]}
    assert cidrs == {"10.75.0.0/24", "10.76.0.0/24", *(f"fd75:{n}::/64" for n in range(1, ATTEMPTS))}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing is to change"),
        (["--mtu", "12"], 2, "/mtu"),
        (["--mtu", "many"], 2, "auto"),
        (["--label", "=x"], 2, "KEY="),
        (["--label", "a=1", "--label", "a-"], 2, "twice"),
        (["--remove-subnet", "10.99.0.0/24"], 2, "no such subnet"),
        (["--grow-subnet", "10.99.0.0/22"], 2, "contains no subnet"),
        (["--reserve", "p=10.99.0.1"], 2, "no subnet"),
        (["--add-subnet-from", "nowhere"], 3, "nowhere"),
        (["-o", f"{DOCKER}bridge.name=br-x"], 4, "bridge_name cannot change"),
        (["-o", f"{DOCKER}no.such=1"], 2, "not known"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    world: World, arguments: list[str], code: int, says: str
) -> None:
    name = world.network("--no-ipv6")
    before = shown(world, name)

    outcome = world.run("network", "update", name, *arguments)

    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert says in outcome.err
    assert shown(world, name) == before


def test_networks_become_peers_and_are_apart_again(world: World) -> None:
    one, two, three = world.network(), world.network(), world.network()

    for _ in range(2):  # the second time changes nothing
        assert world.ok("network", "peer", one, two, three).lines == [two, three]
    assert [p["name"] for p in shown(world, one)["peers"]] == [two, three]
    assert [p["name"] for p in shown(world, three)["peers"]] == [one]
    titles, row = world.ok("network", "ls", "-o", "wide", "-f", f"name={three}").lines
    assert "PEERS" in titles.split()
    assert one in row.split()[-3:-1] or one in row.split()

    for _ in range(2):
        assert world.ok("network", "unpeer", one, two).lines == [two]
    assert shown(world, two)["peers"] == []
    world.ok("network", "rm", one)
    assert shown(world, three)["peers"] == []


def test_who_cannot_be_a_peer_is_told_why_and_the_others_are(world: World) -> None:
    one, inner, two = world.network(), world.network("--internal"), world.network()

    outcome = world.run("network", "peer", one, inner, "nowhere", one, two)

    assert outcome.lines == [two]
    assert outcome.code == 2
    for words in ("is internal", "nowhere", "its own peer"):
        assert words in outcome.err
    assert [p["name"] for p in shown(world, one)["peers"]] == [two]


def test_subnets_and_names_are_completed(world: World) -> None:
    name = world.network("--subnet", "10.69.0.0/24")

    assert name in completed("kvnet network update ", world.url)
    assert completed(f"kvnet network update {name} --remove-subnet ", world.url) == ["10.69.0.0/24"]
    assert "--interface-prefix" in completed("kvnet network update x --int", world.url)
    assert name in completed("kvnet network peer x ", world.url)


def test_changing_does_not_load_the_server(world: World) -> None:
    name = world.network()
    commands = (["network", "update", name, "--label", "a=b"], ["network", "peer", name, world.network()])

    loaded = modules_loaded_by(*[["--controller", world.url, *command] for command in commands])

    assert "cli.change" in loaded
    assert not tops(loaded) & set(SERVER)
