"""Ctrl-C, closed pipes and controllers that cannot start: no command leaves a stack trace behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.world import DEADLINE_S, KVNET, World


def test_watching_goes_on_until_ctrl_c_which_is_clean(world: World) -> None:
    network = world.network()
    with world.start("events", "--since", "0", "--watch", "--network", network) as watching:
        assert watching.stdout is not None
        assert "network.created" in watching.stdout.readline()
        world.endpoint(network, "c1")
        assert "endpoint.created" in watching.stdout.readline()

        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=DEADLINE_S)

    assert watching.returncode == 130
    assert errors.strip() == ""


@pytest.mark.parametrize("command", [["network", "ls"], ["events"], ["events", "--watch", "--since", "0"]])
def test_a_reader_that_goes_away_is_no_failure_to_talk_about(world: World, command: list[str]) -> None:
    world.network()
    reading, writing = os.pipe()
    os.close(reading)
    with world.start(*command, stdout=writing) as process:
        os.close(writing)
        _, errors = process.communicate(timeout=DEADLINE_S)

    assert (process.returncode, errors) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told(world: World, unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full, world.start("network", "ls", stdout=full, env=environment) as process:
        _, errors = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 1
    assert "No space left on device" in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--store", "memory://", "--listen", "127.0.0.1:99999"], 2, "not an address to listen on"),
        (["--store", "sqlite:///proc/nowhere/kvnet.db"], 5, "/proc/nowhere"),
        (["--store", "etcd://127.0.0.1:9", "--start-timeout", "1s"], 5, "etcd at 127.0.0.1:9"),
        (["--store", "nonsense"], 2, "is not a store URL"),
        (["--store", "memory://", "--cool-down", "soon"], 2, "is not a duration"),
    ],
)
def test_a_controller_that_cannot_start_says_why(arguments: list[str], code: int, says: str) -> None:
    done = subprocess.run(
        [*KVNET, "controller", "--listen", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_listen_address_of_another_process_is_a_conflict(world: World) -> None:
    listen = world.url.removeprefix("http://")
    done = subprocess.run(
        [*KVNET, "controller", "--store", "memory://", "--listen", listen],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == 4
    assert "is in use by another process" in done.stderr
