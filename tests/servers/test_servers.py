"""The servers that tests lean on do what tests are told of them: one member, three members, each kind.

Asks the servers themselves, never through kvnet's store adapters.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from tests.servers.binaries import KINDS, Kind, NotInstalled
from tests.servers.cluster import Cluster
from tests.servers.etcd import Etcd
from tests.servers.family import ServerFailed
from tests.servers.places import NoAnswer

pytestmark = pytest.mark.anyio
START_SECONDS = 60.0
GONE_SECONDS = 10.0
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
async def test_a_killed_server_comes_back_where_it_was(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as store:
        url, member = store.url("site"), store.members[0]
        await member.kill()

        with pytest.raises(NoAnswer):
            await store.family.is_ready(0)
        await member.restart()

        assert store.url("site") == url
        assert await store.leader() == 0


@every_kind
async def test_a_port_that_is_taken_meanwhile_is_replaced(kind: Kind, tmp_path: Path) -> None:
    store = Cluster(kind, tmp_path, members=3)
    taken = store.members[1].endpoint
    with socket.create_server(("127.0.0.1", int(taken.rpartition(":")[2]))):
        async with store:
            assert store.members[1].endpoint != taken
            assert await store.leader() in range(3)


@every_kind
async def test_three_members_lose_their_leader_and_choose_another(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path, members=3) as store:
        first = await store.leader()
        await store.members[first].kill()

        assert await store.leader() != first

        await store.members[first].wipe()
        await store.members[first].start()
        await store.until_healthy()
        assert all(member.is_running for member in store.members)


@every_kind
async def test_a_secured_server_answers_those_it_knows(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path, client_certificates=True, auth=True) as store:
        owner, stranger = await store.grant("kvnet"), await store.stranger()

        assert owner != stranger
        assert f"{owner.password}@127.0.0.1:" in store.url(who=owner)
        assert str(store.certificates.client.key) in store.url() if store.certificates else False


async def test_a_frozen_server_keeps_silent_until_it_is_thawed(tmp_path: Path) -> None:
    async with Cluster("etcd3.5", tmp_path) as store:
        await store.members[0].freeze()
        with pytest.raises(NoAnswer, match="does not answer"):
            await store.family.is_ready(0)

        await store.members[0].thaw()

        await store.until_healthy()


async def test_data_outlives_a_crash_of_all_and_not_a_wipe_of_all(tmp_path: Path) -> None:
    async with Cluster("etcd3.5", tmp_path, members=3) as store:
        assert isinstance(store.family, Etcd)
        await store.family.ctl("put", "kept", "yes")
        await store.kill_all()
        await store.start()
        assert await store.family.ctl("get", "kept") == "kept\nyes"

        await store.wipe_all()

        assert await store.family.ctl("get", "kept") == ""


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="election"):
        async with Cluster("etcd3.5", tmp_path, options=["--election-timeout=1"]):
            pass


async def test_a_missing_server_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVNET_SERVERS_DIR", str(tmp_path))

    with pytest.raises(NotInstalled, match="make servers"):
        Cluster("consul", tmp_path)


async def test_servers_end_with_whoever_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.servers", "etcd3.5", "--directory", str(tmp_path)]
    starter = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert starter.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            url = await starter.stdout.readline()
        assert url.startswith(b"etcd://127.0.0.1:")
        servers = _children(starter.pid)
    finally:
        starter.kill()
        await starter.wait()

    assert len(servers) == 1
    async with asyncio.timeout(GONE_SECONDS):
        while _is_alive(servers[0]):  # noqa: ASYNC110 - it is nobody's child any more
            await asyncio.sleep(0.01)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
