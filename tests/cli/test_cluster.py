"""Hosts, pools, addresses, events, status and check on the command line, against a real controller."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests import stores
from tests.cli.world import DEADLINE_S, KVNET, World, running


def test_hosts_are_listed_with_their_state(world: World) -> None:
    network = world.network()
    world.endpoint(network, "c1", "h2")

    rows = {line.split()[0]: line.split() for line in world.ok("host", "ls").lines[1:]}

    assert rows["h1"][:3] == ["h1", "192.0.2.1", "alive"]
    assert rows["h3"][2] == "down"
    assert world.ok("host", "ls", "-f", "state=down", "-q").lines == ["h3"]
    assert network in world.ok("host", "inspect", "h2").data[0]["networks"]
    assert "6.1.0" in world.ok("host", "ls", "-o", "wide").out


def test_a_host_is_removed_only_when_it_is_gone(world: World) -> None:
    world.register("h9", "192.0.2.9", is_alive=False)

    assert world.run("host", "rm", "h1").code == 4
    assert world.ok("host", "rm", "h9").lines == ["h9"]
    assert world.run("host", "rm", "h9").code == 3


def test_pools_are_made_used_and_removed(world: World) -> None:
    pool = world.fresh("p")
    block = "10.90.0.0/22"

    assert world.ok("pool", "create", pool, block, "--reserve", "10.90.1.0/24").lines == [pool]
    made = world.ok("network", "create", world.fresh(), "--pool", pool, "--output", "json").data

    assert made["subnets"][0]["cidr"].startswith("10.90.")
    row = next(line for line in world.ok("pool", "ls").lines if line.startswith(pool))
    assert block in row
    assert "/24" in row.split()
    world.ok("network", "rm", made["name"])
    assert world.ok("pool", "rm", pool).lines == [pool]
    assert world.run("pool", "rm", pool).code == 3


def test_who_has_an_address_is_the_first_line(world: World) -> None:
    network = world.network("--no-ipv6")
    endpoint = world.endpoint(network, "c1", "h1")
    address = str(endpoint["address"])

    line, *_ = world.ok("ipam", "show", address).lines
    assert line.startswith(f"{address} belongs to endpoint c1 ({endpoint['id']}) of network {network} on host h1, for ")

    world.ok("endpoint", "rm", network, "c1")
    line, *_ = world.ok("ipam", "show", address).lines
    assert f"{address} cools down on network {network} for another" in line


def test_what_overlaps_a_block_and_what_is_free(world: World) -> None:
    network = world.network("--subnet", "10.91.4.0/24")

    assert network in world.ok("ipam", "show", "10.91.0.0/16").out
    assert "10.92.0.0/16 is free" in world.ok("ipam", "show", "10.92.0.0/16").out
    assert "belongs to no network" in world.ok("ipam", "show", "203.0.113.9").out
    assert "is free on network" in world.ok("ipam", "show", "10.91.4.77").out
    assert "is the gateway address of" in world.ok("ipam", "show", "10.91.4.1").out


def test_the_whole_and_one_network_are_shown(world: World) -> None:
    network = world.network("--subnet", "10.93.0.0/24", "--aux-address", "printer=10.93.0.9")
    world.endpoint(network, "c1", address="10.93.0.77")
    world.ok("ipam", "reserve", network, "nas", "10.93.0.10")

    whole = world.ok("ipam", "show")
    one = world.ok("ipam", "show", network)

    assert "default6" in whole.out
    assert f"{network}" in whole.out
    for text in ("10.93.0.0/24", "printer", "nas", "c1", "10.93.0.77"):
        assert text in one.out
    assert world.ok("ipam", "show", network, "-o", "json").data["network"]["name"] == network
    assert {"pools", "networks"} <= set(world.ok("ipam", "show", "-o", "json").data)


def test_addresses_are_reserved_and_released(world: World) -> None:
    network = world.network("--no-ipv6")

    (address,) = world.ok("ipam", "reserve", network, "nas").lines
    assert f"{address} is reserved on network {network} as nas" in world.ok("ipam", "show", address).out
    assert world.run("ipam", "reserve", network, "other", address).code == 4
    assert world.ok("ipam", "release", network, "nas").lines == ["nas"]
    assert world.run("ipam", "release", network, "nas").code == 3


def test_events_tell_what_was_done_and_end(world: World) -> None:
    network = world.network()
    world.endpoint(network, "c1", "h1")
    world.ok("endpoint", "rm", network, "c1")

    lines = world.ok("events", "--network", network).lines
    told = [json.loads(line) for line in world.ok("events", "--network", network, "-o", "json").lines]

    assert [line.split()[3] for line in lines] == ["network.created", "endpoint.created", "endpoint.deleted"]
    assert "c1 on h1" in lines[1]
    assert [event["kind"] for event in told] == ["network.created", "endpoint.created", "endpoint.deleted"]
    after = told[0]["revision"]
    assert len(world.ok("events", "--network", network, "--since", str(after)).lines) == 2
    assert len(world.ok("events", "--network", network, "--kind", "endpoint").lines) == 2
    assert world.run("events", "--network", "nowhere").code == 3


def test_status_names_what_is_not_well(world: World, shared_store_name: str) -> None:
    outcome = world.ok("status")

    assert f"Store:       {stores.scheme(shared_store_name)}" in outcome.out
    assert "  host h3 is down" in outcome.out
    data = world.ok("status", "-o", "json").data
    assert data["ok"] is False
    assert any("h3" in trouble for trouble in data["troubles"])


def test_status_waits_and_gives_up(world: World) -> None:
    outcome = world.run("status", "--wait=0.3")

    assert outcome.code == 1
    assert "h3 is down" in outcome.out


def test_a_store_without_damage_passes_the_check(world: World) -> None:
    outcome = world.ok("check")

    assert "no invariant is violated at revision" in outcome.out
    assert world.ok("check", "-o", "json").data["ok"] is True
    assert world.ok("check", "--repair", "--yes").code == 0


def test_the_controllers_version_is_told(world: World) -> None:
    assert "(API v1)" in world.ok("version").out
    assert world.ok("version", "-o", "json").data["controller"]["api"] == "v1"


@pytest.mark.parametrize("arguments", [["network", "ls"], ["status"], ["network", "create", "x"], ["events"]])
def test_nobody_at_the_address_is_unreachable(world: World, arguments: list[str], tmp_path: Path) -> None:
    outcome = world.run(*arguments, "--controller", f"unix://{tmp_path}/none.sock")

    assert (outcome.code, outcome.out) == (5, "")
    assert "Error: no answer from the controller at unix://" in outcome.err
    assert "Fix: start one with 'kvnet controller'" in outcome.err


def test_a_version_without_a_controller_is_no_failure(world: World, tmp_path: Path) -> None:
    assert "does not answer" in world.ok("version", "--controller", f"unix://{tmp_path}/none.sock").out


def test_a_controller_that_is_yet_to_start_is_waited_for_also_over_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    command = [*KVNET, "status", "--wait=20", "--controller", f"unix://{path}"]

    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting,
        running("memory://", "--listen-unix", str(path)),
    ):
        shown, _ = waiting.communicate(timeout=DEADLINE_S)

    assert waiting.returncode == 0, shown
    assert "All is well." in shown


def test_a_cluster_that_is_warned_of_is_not_called_well(tmp_path: Path) -> None:
    with running(f"sqlite://{tmp_path}/kvnet.db") as world:
        world.plant("pools/odd", b"{}")
        deadline = time.monotonic() + DEADLINE_S
        while "Warning:" not in (shown := world.ok("status").out) and time.monotonic() < deadline:
            time.sleep(0.05)

    assert "pools/odd" in shown
    assert "Every host is well, but:" in shown
    assert "All is well." not in shown


def test_damage_is_found_and_repaired(tmp_path: Path) -> None:
    with running(f"sqlite://{tmp_path}/kvnet.db", "--no-upkeep") as world:
        world.plant("names/ghost", b'{"v":1,"network":"0123456789ab"}')

        found = world.run("check")
        as_data = world.run("check", "-o", "json")
        repaired = world.run("check", "--repair", "--yes")

    assert found.code == as_data.code == 1, found
    assert "names/ghost" in found.out
    assert "1 finding at revision" in found.out
    assert as_data.data["findings"][0]["keys"]
    assert repaired.code == 0, repaired
    assert repaired.lines[0].startswith("repaired ")
