"""Profiles: what a command is not told it finds there; what is broken or shows a secret is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.world import World

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration; the folder that profiles go to."""
    for name in ("KVNET_CONTROLLER", "KVNET_PROFILE", "KVNET_TOKEN", "KVNET_TOKEN_FILE", "KVNET_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "kvnet"


def test_the_first_profile_is_current_and_others_are_named(world: World, home: Path) -> None:
    world.bare("profile", "set", "here", "--controller", world.url)
    world.bare("profile", "set", "nobody", "--controller", NOBODY)

    assert world.bare("network", "ls").code == 0
    assert world.bare("--profile", "nobody", "network", "ls").code == 5
    assert world.bare("profile", "ls").lines[0] == f"* here  {world.url}"
    world.bare("profile", "use", "nobody")
    assert world.bare("network", "ls").code == 5
    world.bare("profile", "rm", "nobody")
    assert world.bare("profile", "use", "nobody").code == 3
    assert (home / "profiles.toml").stat().st_mode & 0o777 == 0o600


def test_an_option_beats_the_environment_and_that_beats_the_profile(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.bare("profile", "set", "here", "--controller", NOBODY, "--output", "json")
    assert world.bare("--controller", world.url, "pool", "ls").data
    monkeypatch.setenv("KVNET_CONTROLLER", world.url)
    assert world.bare("pool", "ls").data
    assert world.bare("pool", "ls", "-o", "name").lines[0] == "default"
    monkeypatch.setenv("KVNET_OUTPUT", "name")
    assert world.bare("pool", "ls").lines[0] == "default"
    assert world.bare("--controller", NOBODY, "pool", "ls").code == 5
    monkeypatch.setenv("KVNET_OUTPUT", "pretty")
    assert world.bare("pool", "ls").code == 2


def test_a_profile_that_is_not_there_is_no_default_controller(world: World, home: Path) -> None:
    outcome = world.bare("--profile", "lab", "network", "ls")

    assert outcome.code == 3
    assert "there is no profile 'lab'" in outcome.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("current = ", "are broken"),
        ('[profiles.lab]\ncontroler = "x"', "a setting 'controler'"),
        ("[profiles.lab]\ncontroller = 7", "not a text in quotes"),
        ('[profiles.lab]\noutput = "pretty"', "output of profile 'lab' is 'pretty'"),
        ('current = "x"', "is not one of its profiles"),
        ('controller = "x"', "there is no setting 'controller'"),
        ("profiles = 1", "'profiles' is not a table"),
    ],
)
def test_a_broken_file_is_told_and_not_guessed_at(world: World, home: Path, text: str, said: str) -> None:
    home.mkdir()
    (home / "profiles.toml").write_text(text)

    for command in (["network", "ls"], ["profile", "ls"]):
        outcome = world.bare(*command)
        assert (outcome.code, said in outcome.err) == (2, True), outcome
    assert world.bare("network", "--help").code == 0


def test_a_token_that_others_may_read_is_refused_and_never_shown(world: World, home: Path) -> None:
    assert world.bare("profile", "set", "here", "--controller", world.url, "--token-stdin", input="secret\n").code == 0
    file = home / "profiles.toml"

    assert "no credential that is good" in world.bare("network", "ls").err, "it is sent, and nobody's"
    assert "secret" not in world.bare("profile", "show", "here").out
    file.chmod(0o644)
    outcome = world.bare("network", "ls")
    assert outcome.code == 2
    assert f"{file} holds a token and others may read it" in outcome.err
    assert f"chmod 600 {file}" in outcome.err


def test_settings_are_changed_one_by_one_and_taken_away(world: World, home: Path) -> None:
    world.bare("profile", "set", "here", "--controller", world.url, "--socket", "/run/x.sock")
    world.bare("profile", "set", "here", "--socket", "none", "--output", "yaml")

    shown = world.bare("profile", "show", "-o", "json").data
    assert shown == {"name": "here", "current": True, "controller": world.url, "output": "yaml"}
    assert world.bare("profile", "set", "here").code == 2
    assert world.bare("profile", "set", "here", "--controller", "nonsense").code == 2
