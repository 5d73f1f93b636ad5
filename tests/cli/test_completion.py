"""Shell completion in the shells themselves: commands, options, values, and the names of what there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli import shells
from tests.cli.world import World

Shell = Callable[[str, str], list[str]]


@pytest.mark.parametrize("shell", [shells.bash, shells.fish])
def test_commands_options_and_values_are_completed(world: World, shell: Shell) -> None:
    assert shell("kvnet netw", world.url) == ["network"]
    assert shell("kvnet network ls --so", world.url) == ["--sort-by"]
    assert shell("kvnet network ls -o w", world.url) == ["wide"]
    assert shell("kvnet network ls --sort-by us", world.url) == ["used"]
    assert shell("kvnet network create --driver ro", world.url) == ["routed"]
    assert "driver=" in shell("kvnet network ls --filter d", world.url)
    assert shell("kvnet wait po", world.url) == ["pool/"]


@pytest.mark.parametrize("shell", [shells.bash, shells.fish])
def test_names_of_what_there_is_are_completed(world: World, shell: Shell) -> None:
    network = world.network("--label", "team=web")
    world.endpoint(network, "c1")
    world.ok("ipam", "reserve", network, "printer")

    assert network in shell("kvnet network rm ", world.url)
    assert shell(f"kvnet endpoint rm {network} ", world.url) == ["c1"]
    assert shell(f"kvnet endpoint describe {network}/", world.url) == [f"{network}/c1"]
    assert shell(f"kvnet ipam release {network} ", world.url) == ["printer"]
    assert shell("kvnet host inspect h1", world.url) == ["h1"]
    assert "default" in shell("kvnet pool rm ", world.url)
    assert shell("kvnet wait host/h2", world.url) == ["host/h2"]
    assert shell("kvnet network ls --columns name,subn", world.url) == ["name,subnet"]


def test_values_of_filters_are_completed_where_bash_has_broken_the_word(world: World) -> None:
    world.network("--label", "team=web")

    assert shells.bash("kvnet network ls --filter driver=ro", world.url) == ["routed"]
    assert "web" in shells.bash("kvnet network ls --filter label=team=", world.url)
    assert shells.fish("kvnet network ls --filter driver=ro", world.url) == ["driver=routed"]


def test_zsh_completes_on_its_own_terminal(world: World) -> None:
    network = world.network()

    assert "kvnet network " in shells.zsh("kvnet netw", world.url, "kvnet network ")
    assert network in shells.zsh("kvnet network rm n", world.url, network)


@pytest.mark.parametrize("controller", ["unix:///nowhere.sock", "nonsense"])
def test_without_a_controller_nothing_is_suggested_and_nothing_said(controller: str) -> None:
    assert shells.bash("kvnet network rm ", controller) == []
    assert shells.fish("kvnet network rm ", controller) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(world: World, shell: str) -> None:
    assert "_KVNET_COMPLETE" in world.ok("completion", shell).out
