"""`--dry-run`: what every host would do is told, and nothing is done."""

from __future__ import annotations

from tests.cli.world import World


def test_a_network_is_shown_as_a_host_would_build_it_and_not_made(world: World) -> None:
    name = world.fresh("n")
    told = world.ok("network", "create", "--dry-run", name)

    assert any("create bridge kvb" in line for line in told.lines)
    assert "nothing was changed" in told.err
    assert world.run("network", "inspect", name).code != 0


def test_changes_removals_and_peers_are_shown_and_not_made(world: World) -> None:
    name, other = world.network(), world.network()
    for command in (
        ("network", "update", name, "--no-icc"),
        ("network", "peer", name, other),
        ("network", "unpeer", name, other),
        ("network", "rm", name),
    ):
        assert "nothing was changed" in world.ok(*command, "--dry-run").err
    shown = world.ok("network", "inspect", name).data[0]
    assert (shown["icc"], shown["peers"]) == (True, [])


def test_an_endpoint_is_shown_with_its_port(world: World) -> None:
    name = world.network()
    command = ("endpoint", "create", name, "--host", "h1", "--name", "web", "--publish", "18123:80")
    told = world.ok(*command, "--dry-run")

    assert any("18123" in line for line in told.lines)
    made = world.ok(*command).lines[0]
    assert any("delete interface" in line for line in world.ok("endpoint", "rm", name, made, "--dry-run").lines)
    assert world.ok("endpoint", "inspect", name, made).data[0]["name"] == "web"


def test_a_plan_is_data_too_and_a_refusal_is_one_in_a_dry_run(world: World) -> None:
    name = world.network()
    plan = world.ok("network", "create", "--dry-run", "--output", "json", world.fresh("n")).data
    assert plan["dry_run"] == "plan"
    assert world.run("network", "create", "--dry-run", name).code != 0
