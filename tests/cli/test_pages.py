"""What one thing is, was, and waits for: describe, wait, the history of an address."""

from __future__ import annotations

import subprocess
import time

from tests.cli.terminal import until
from tests.cli.world import DEADLINE_S, World


def test_a_network_is_described_with_what_happened_and_what_blocks_its_removal(world: World) -> None:
    name = world.network("--label", "team=web", "--no-ipv6")
    endpoint = world.endpoint(name, "c1", "h1")
    world.ok("ipam", "reserve", name, "printer")

    page = world.ok("network", "describe", name).out

    for wanted in ("Conditions", "Subnets", "Reservations", "Endpoints (1)", "Hosts", "What happened"):
        assert wanted in page
    assert "team=web" in page
    assert "reservation.created" in page
    assert str(endpoint["address"]) in page
    assert f"network '{name}' has 1 endpoint: c1 on h1" in page
    (data,) = world.ok("network", "describe", name, "-o", "json").data
    assert [event["kind"] for event in data["events"]] == ["reservation.created", "endpoint.created", "network.created"]
    assert data["blocks_deletion"]


def test_what_happened_to_an_earlier_network_of_the_name_is_not_this_ones(world: World) -> None:
    name = world.network()
    world.ok("network", "rm", name)
    world.ok("network", "create", name)

    (data,) = world.ok("network", "describe", name, "-o", "json").data

    assert [event["kind"] for event in data["events"]] == ["network.created"]


def test_endpoints_hosts_and_pools_are_described(world: World) -> None:
    name = world.network("--no-ipv6")
    endpoint = world.endpoint(name, "c1", "h1", ports=[{"port": 80, "host_port": 18080}])

    assert "18080" in world.ok("endpoint", "describe", f"{name}/c1").out
    assert f"Endpoint {name}/c1" in world.ok("endpoint", "describe", str(endpoint["address"])).out
    assert f"Endpoint {name}/c1" in world.ok("endpoint", "describe", endpoint["id"]).out
    host = world.ok("host", "describe", "h1").out
    assert "host 'h1' is alive" in host
    assert "18080/tcp" in host
    pool = world.ok("pool", "describe", "default").out
    assert name in pool
    assert "lie in pool 'default'" in pool
    several = world.run("host", "describe", "h1", "nowhere")
    assert several.code == 3
    assert "Host h1" in several.out


def test_a_name_that_several_endpoints_have_must_say_its_network(world: World) -> None:
    one, other = world.network(), world.network()
    twin = world.fresh("twin")
    world.endpoint(one, twin)
    world.endpoint(other, twin)

    refused = world.run("endpoint", "inspect", twin)

    assert refused.code == 4
    assert f"{one}/{twin}" in refused.err
    assert world.ok("endpoint", "inspect", f"{other}/{twin}").data[0]["network_name"] == other


def test_an_address_has_a_history(world: World) -> None:
    name = world.network("--no-ipv6")
    before = world.endpoint(name, "before", "h1")
    address = str(before["address"])
    world.ok("endpoint", "rm", name, "before")
    world.ok("endpoint", "create", name, "--host", "h2", "--name", "after", "--address", address, "--reuse")

    shown = world.ok("ipam", "show", address)
    data = world.ok("ipam", "show", address, "-o", "json").data

    assert "belongs to endpoint after" in shown.lines[0]
    assert "asked for by: anonymous@127.0.0.1, request " in shown.out
    assert [event["kind"] for event in data["history"]] == ["endpoint.created", "endpoint.deleted", "endpoint.created"]
    assert data["holders"][0]["asked"]["after"]["name"] == "after"
    assert data["history"][-1]["after"]["name"] == "before"


def test_who_waits_is_told_as_soon_as_it_is_there(world: World) -> None:
    name = world.fresh("late")
    with world.start("wait", f"network/{name}", "--timeout", "20s") as waiting:
        world.ok("network", "create", name)
        began = time.monotonic()
        shown, _ = waiting.communicate(timeout=DEADLINE_S)

    assert (waiting.returncode, shown) == (0, f"network/{name} is ready\n")
    assert time.monotonic() - began < 5


def test_a_deletion_is_waited_for_though_a_successor_has_the_name(world: World) -> None:
    name = world.network()
    streams = world.streams()
    with world.start("network", "wait", name, "--for=deleted", "--timeout", "20s", stdin=subprocess.DEVNULL) as waiting:
        until(lambda: world.streams() > streams)
        world.ok("network", "rm", name)
        world.ok("network", "create", name)
        shown, _ = waiting.communicate(timeout=DEADLINE_S)

    assert (waiting.returncode, shown) == (0, f"network/{name} is deleted\n")


def test_when_the_time_is_over_it_says_what_is_missing(world: World) -> None:
    name = world.network()
    world.endpoint(name, "c1", "h1")

    outcome = world.run("wait", f"network/{name}", "host/h3", "network/nowhere", "--for=converged", "--timeout", "0.2s")

    assert outcome.code == 1
    assert "waiting for h1" in outcome.err
    assert "host/h3 is not converged" in outcome.err
    assert "there is no network 'nowhere'" in outcome.err
    assert world.ok("wait", "network/nowhere", "--for=deleted", "--timeout", "0s").code == 0
    assert world.run("wait", "nonsense").code == 2
    assert world.run("wait", "pool/default", "--for=converged").code == 2


def test_who_has_applied_what_is_told(world: World) -> None:
    name = world.network()
    world.endpoint(name, "c1", "h1")

    told = world.run("network", "convergence", name, "--exit-code")

    assert told.code == 1
    assert "behind: h1" in told.out
    assert world.ok("network", "convergence", name, "-o", "json").data["hosts"][0]["host"] == "h1"


def test_misspelt_names_and_codes_are_guessed_and_explained(world: World) -> None:
    name = f"{world.network()}-database"
    world.ok("network", "create", name)

    assert f"did you mean '{name}'?" in world.run("network", "inspect", name.replace("database", "databse")).err
    assert "did you mean 'default'" in world.run("pool", "inspect", "defualt").err
    assert "409" in world.ok("explain", "subnet-taken").out
    assert world.run("explain", "nonsense").code == 3
