"""Client commands that do their work: none of them pays for the server."""

from __future__ import annotations

from tests.cli.loading import SERVER, modules_loaded_by, tops
from tests.cli.world import World


def test_no_client_command_loads_the_server(world: World) -> None:
    name = world.network()
    commands = (
        ["network", "ls", "-o", "yaml"],
        ["network", "inspect", name],
        ["network", "rm", name],
        ["network", "prune", "--dry-run"],
        ["endpoint", "ls"],
        ["host", "ls"],
        ["pool", "ls", "-o", "wide"],
        ["ipam", "show"],
        ["ipam", "show", "10.0.0.1"],
        ["status"],
        ["check"],
        ["events"],
        ["version"],
        ["completion", "bash"],
    )

    loaded = modules_loaded_by(*[["--controller", world.url, *command] for command in commands])

    assert {f"cli.{command[0]}" for command in commands} <= loaded
    assert not tops(loaded) & set(SERVER)
