"""Lists in all their forms: columns, orders, CSV for spreadsheets that trust nobody, rows that come as they change."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, until
from tests.cli.world import DEADLINE_S, KVNET, World, running


def test_columns_are_chosen_and_the_order_goes_both_ways(world: World) -> None:
    label = world.fresh("only")
    for size in (24, 25, 26):
        world.network("--label", label, "--prefix-length", str(size), "--no-ipv6")

    def shown(*options: str) -> list[list[str]]:
        listed = world.ok("network", "ls", "--filter", f"label={label}", "--columns", "used,name", *options)
        return [line.split() for line in listed.lines]

    up, down = shown("--sort-by", "name", "--no-headers"), shown("--sort-by", "-name", "--no-headers")

    assert shown()[0] == ["USED/SIZE", "(%)", "NAME"]
    assert len(up) == 3
    assert up == down[::-1]
    assert [row[0] for row in up] == ["0/253", "0/125", "0/61"]


def test_a_misspelt_column_is_guessed(world: World) -> None:
    outcome = world.run("network", "ls", "--sort-by", "nmae")

    assert outcome.code == 2
    assert "Did you mean 'name'?" in outcome.err


def test_csv_has_every_column_whole_and_no_formula(world: World) -> None:
    name = world.network("--label", 'team==HYPERLINK("http://x")', "--label", "note=a,b", "--no-ipv6")
    world.endpoint(name, "c1")

    text = world.ok("network", "ls", "-o", "csv", "--filter", f"name={name}").out
    (row,) = [row for row in csv.DictReader(io.StringIO(text, newline="")) if row["NAME"] == name]

    assert (row["USED"], row["SIZE"], row["ENDPOINTS"], row["HOSTS"]) == ("1", "253", "1", "h1")
    assert row["CREATED"].startswith("20")
    assert row["LABELS"] == 'note=a,b,team==HYPERLINK("http://x")'
    (headless,) = world.ok("network", "ls", "-o", "csv", "--no-headers", "--columns", "name,driver", "-f",
                           f"name={name}").out.splitlines()  # fmt: skip
    assert headless.split(",")[0] == name


@contextmanager
def watching(world: World, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A list that is watched through a pipe, and the lines it has printed."""
    with world.start(*arguments, "--watch") as process:
        lines: list[str] = []
        assert process.stdout is not None
        out = process.stdout
        reader = threading.Thread(target=lambda: lines.extend(iter(out.readline, "")), daemon=True)
        reader.start()
        try:
            yield process, lines
        finally:
            process.kill()
            process.wait(DEADLINE_S)
            reader.join(DEADLINE_S)


def test_what_is_watched_through_a_pipe_is_appended_row_by_row(world: World) -> None:
    label = world.fresh("watched")
    first = world.network("--label", label)
    with watching(world, "network", "ls", "--filter", f"label={label}", "-o", "csv", "--columns", "name,endpoints") as (
        _,
        lines,
    ):
        until(lambda: any(line.startswith(f"added,{first},0") for line in lines))
        world.endpoint(first, "c1")
        until(lambda: any(line.startswith(f"changed,{first},1") for line in lines))
        world.ok("endpoint", "rm", first, "c1")
        world.ok("network", "rm", first)
        until(lambda: any(line.startswith(f"removed,{first},") for line in lines))

    assert lines[0].strip() == "CHANGE,NAME,ENDPOINTS"


def test_a_watched_list_outlives_a_restart_of_the_controller(tmp_path: Path) -> None:
    store, address = f"sqlite://{tmp_path}/kvnet.db", tmp_path / "c.sock"
    with running(store, "--listen-unix", str(address)) as world:
        here = World(f"unix://{address}", world.process)
        with watching(here, "network", "ls", "-o", "json") as (process, lines):
            here.ok("network", "create", "before")
            until(lambda: any("before" in line for line in lines))
            world.process.terminate()
            world.process.wait(DEADLINE_S)
            with running(store, "--listen-unix", str(address)):
                here.ok("network", "create", "after")
                until(lambda: any("after" in line for line in lines))
            assert process.poll() is None

    changes = [json.loads(line) for line in lines]
    assert [c["object"]["name"] for c in changes if c["change"] == "added"] == ["before", "after"]


def test_on_a_terminal_a_watched_list_is_drawn_in_its_place(world: World) -> None:
    with Terminal([*KVNET, "--controller", world.url, "network", "ls", "--watch", "--columns", "name"]) as terminal:
        terminal.until("NAME")
        name = world.network()
        said = terminal.until(name)

    assert "\x1b[H" in said
    assert "\x1b[J" in said


def test_a_terminal_says_in_every_picture_that_nobody_answers(tmp_path: Path) -> None:
    store, address = f"sqlite://{tmp_path}/kvnet.db", tmp_path / "c.sock"
    command = [*KVNET, "--controller", f"unix://{address}", "network", "ls", "--watch", "--columns", "name"]
    with running(store, "--listen-unix", str(address)) as world, Terminal(command) as terminal:
        World(f"unix://{address}", world.process).ok("network", "create", "before")
        terminal.until("before")
        world.process.terminate()
        world.process.wait(DEADLINE_S)
        picture = "waiting for it\x1b[K\r\n\x1b[1mNAME"
        terminal.until(picture)
        terminal.said = ""
        terminal.until(picture)
        with running(store, "--listen-unix", str(address)):
            terminal.until("\x1b[H\x1b[1mNAME")


@pytest.mark.parametrize(("force", "is_coloured"), [("1", True), ("0", False)])
def test_colours_go_into_a_pipe_only_by_order(world: World, force: str, is_coloured: bool) -> None:
    command = [*KVNET, "--controller", world.url, "host", "ls"]
    environment = {"PATH": "/usr/bin:/bin", "CLICOLOR_FORCE": force, "HOME": "/nonexistent"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=True)

    assert ("\x1b[" in done.stdout) is is_coloured
    assert sys.executable == command[0]
