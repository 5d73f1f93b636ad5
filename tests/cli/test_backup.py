"""Backup, restore and the acceptance of a store on the command line, with real files and a real controller."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backends.open import open_store
from backends.store import Delete
from kvnet import keys
from tests.cli.world import DEADLINE_S, KVNET, World, running


def contents(url: str) -> dict[str, bytes]:
    async def read() -> dict[str, bytes]:
        async with await open_store(url) as store:
            return {e.key: e.value for e in (await store.list("")).entries if not e.key.startswith("journal/")}

    return asyncio.run(read())


def lasting(there: dict[str, bytes]) -> dict[str, bytes]:
    passing = (keys.ALIVE, keys.LEADERS, keys.ACCEPTED, keys.JOURNAL, keys.SEALS, keys.REPLICAS)
    return {k: v for k, v in there.items() if not k.startswith(passing)}


def empty(url: str) -> None:
    async def wipe() -> None:
        async with await open_store(url) as store:
            entries = (await store.list("")).entries
            for start in range(0, len(entries), 50):
                await store.commit([], [Delete(e.key) for e in entries[start : start + 50]])

    asyncio.run(wipe())


@pytest.fixture
def a_world(tmp_path: Path) -> Any:
    with running(f"sqlite://{tmp_path}/kvnet.db", "--no-upkeep") as world:
        world.register("h1", "192.0.2.1")
        world.ok("network", "create", "my-net", "--subnet", "10.1.0.0/24")
        world.endpoint("my-net", "web")
        yield world


@pytest.mark.parametrize("name", ["b.json", "b.json.gz"])
def test_a_backup_comes_back_into_another_store(a_world: World, tmp_path: Path, name: str) -> None:
    file, target = str(tmp_path / name), f"sqlite://{tmp_path}/other.db"

    told = a_world.ok("backup", file)
    verified = a_world.ok("backup", "--verify", file)
    restored = a_world.ok("restore", file, "--store", target)

    assert "1 networks, 1 endpoints" in told.err
    assert "is whole" in verified.err
    assert "go on by themselves" in restored.err
    assert lasting(contents(target)) == lasting(contents(a_world.url))
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir() if ".new" in p.name) == []


def test_a_file_is_not_overwritten_unless_told(a_world: World, tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_text("precious")

    refused = a_world.run("backup", str(file))

    assert refused.code == 2
    assert "--force" in refused.err
    assert file.read_text() == "precious"
    a_world.ok("backup", str(file), "--force")
    assert a_world.ok("backup", "--verify", str(file), "-o", "json").data["findings"] == []


def test_what_is_no_file_is_never_replaced_by_one(a_world: World, tmp_path: Path) -> None:
    """/dev/null, for who is root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    refused = a_world.run("backup", str(pipe), "--force")

    assert refused.code == 2
    assert "is not a file" in refused.err
    assert pipe.is_fifo()


def test_streams_will_do(a_world: World, tmp_path: Path) -> None:
    target = f"sqlite://{tmp_path}/other.db"
    command = [*KVNET, "--controller", a_world.url, "backup", "-"]
    written = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=True).stdout

    command = [*KVNET, "restore", "-", "--store", target, "-o", "json"]
    done = subprocess.run(command, input=gzip.compress(written), capture_output=True, timeout=DEADLINE_S, check=True)

    assert json.loads(done.stdout)["cluster"] in written.decode()
    assert lasting(contents(target)) == lasting(contents(a_world.url))


def test_what_is_damaged_or_not_empty_is_refused_and_nothing_changes(a_world: World, tmp_path: Path) -> None:
    file, cut = tmp_path / "b", tmp_path / "cut"
    a_world.ok("backup", str(file))
    cut.write_bytes(file.read_bytes()[:-90])
    before = contents(a_world.url)

    assert a_world.run("restore", str(cut), "--replace", "--yes").code == 1
    assert a_world.run("backup", "--verify", str(cut)).code == 1
    refused = a_world.run("restore", str(file))
    assert (refused.code, "--replace" in refused.err) == (4, True)
    assert a_world.run("restore", str(tmp_path / "none")).code == 2
    assert contents(a_world.url) == before


def test_a_wiped_store_is_told_restored_and_believed_again_without_a_restart(a_world: World, tmp_path: Path) -> None:
    file = str(tmp_path / "b.gz")
    a_world.ok("backup", file)
    a_world.ok("network", "create", "later")
    empty(a_world.url)

    refused = a_world.run("network", "create", "x")
    shown = a_world.ok("store", "show")
    not_accepted = a_world.run("store", "accept", "--yes")
    status = a_world.ok("status")

    assert refused.code == 5
    assert "meta/cluster" in refused.err
    assert "kvnet restore FILE" in status.out
    assert "Believed:" in shown.out
    assert (not_accepted.code, "kvnet restore" in not_accepted.err) == (5, True)
    assert "meta/cluster" not in contents(a_world.url)

    a_world.ok("restore", file)
    a_world.ok("network", "create", "after")
    names = a_world.ok("network", "ls", "-o", "name").lines
    assert sorted(names) == ["after", "my-net"]


def test_an_older_store_is_accepted_once_by_one_word(tmp_path: Path) -> None:
    """The file is swapped for an older copy while the controller is down; a host remembers better."""
    with running(f"sqlite://{tmp_path}/kvnet.db", "--no-upkeep") as world:
        world.register("h1", "192.0.2.1")
        report = b'{"v":1,"host":"h1","at":0.0,"networks":{"0123456789ab":{"version":900,"conditions":[]}}}'
        world.plant(keys.observed("h1"), report)

        refused = world.run("network", "create", "x")
        asked = world.run("store", "accept", input="y\n")
        accepted = world.run("store", "accept", "--yes")
        world.ok("network", "create", "x")

        assert (refused.code, "kvnet store accept" in refused.err) == (5, True)
        assert "host h1 has seen a newer store" in refused.err
        assert asked.code == 2  # nobody is at a pipe to be asked
        assert "Is the store meant to be as it is now?" in asked.err
        assert (accepted.code, len(accepted.lines[-1])) == (0, 16)
        assert "Last accepted" in world.ok("store", "show").out
        assert world.ok("status", "-o", "json").data["trouble"] is None
