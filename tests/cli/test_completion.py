"""Shell completion: commands, options, and the names of what there is."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.world import DEADLINE_S, KVNET, World


def completed(typed: str, controller: str) -> list[str]:
    """What bash is offered after this was typed; a space at the end begins a new word."""
    words = len(typed.split()) - (not typed.endswith(" "))
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(words), "_KVNET_COMPLETE": "bash_complete"}
    environment = {**os.environ, **asked, "KVNET_CONTROLLER": controller}
    done = subprocess.run(KVNET, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_and_options_are_completed(world: World) -> None:
    assert completed("kvnet netw", world.url) == ["network"]
    assert completed("kvnet network ls --so", world.url) == ["--sort-by"]
    assert completed("kvnet network ls -o w", world.url) == ["wide"]


def test_names_are_completed(world: World) -> None:
    name = world.network()

    assert name in completed("kvnet network rm ", world.url)
    assert completed("kvnet host inspect h1", world.url) == ["h1"]


def test_without_a_controller_nothing_is_suggested_and_nothing_said() -> None:
    assert completed("kvnet network rm ", "unix:///nowhere.sock") == []
    assert completed("kvnet network rm ", "nonsense") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(world: World, shell: str) -> None:
    assert "_KVNET_COMPLETE" in world.ok("completion", shell).out
