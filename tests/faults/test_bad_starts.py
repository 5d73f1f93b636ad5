"""A store that is not the one: each case is an error of its own, ends the process with a code, and writes nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.open import open_store
from backends.store import Delete, Put, Store
from controller.server import ServerSettings, serve
from controller.settings import Settings
from kvnet import codec, keys
from kvnet.errors import (
    AnotherCluster,
    KvnetError,
    StoreForbidden,
    StoreForeign,
    StoreLoginRefused,
    StoreUnavailable,
    StoreUntrusted,
)
from kvnet.marks import Cluster, Restoring
from kvnet.model import Alive
from tests.api.under_test import running
from tests.unit.controller.kit import FailingStore, FakeTime, add_host

pytestmark = pytest.mark.anyio

KVNET = (sys.executable, "-m", "cli.main")
DEADLINE_S = 30.0
ETCD_KEY = "registry/pods/default/web"


async def started(store: str, opener: Callable[[str], Awaitable[Store]] | None = None, **settings: object) -> None:
    """Start a controller, which is expected to fail."""
    wanted = ServerSettings(store, "127.0.0.1:0", None, Settings(**settings))  # type: ignore[arg-type]
    more = {} if opener is None else {"opener": opener}
    await serve(wanted, ready=lambda _: pytest.fail("it started"), **more)


async def refused_by(state: MemoryState, **settings: object) -> KvnetError:
    """Why a start on this store fails; the store must be what it was."""
    before, revision = dict(state.entries), state.revision

    async def opener(_url: str) -> Store:
        return MemoryStore(state)

    with pytest.raises(KvnetError) as refusal:
        await started("memory://", opener, **settings)
    assert (state.entries, state.revision, state.leases) == (before, revision, {})
    return refusal.value


async def holding(*puts: Put) -> MemoryState:
    state = MemoryState()
    async with MemoryStore(state) as store:
        await store.commit([], list(puts))
    return state


async def test_somebody_elses_data_are_named_and_left_alone() -> None:
    error = await refused_by(await holding(Put(ETCD_KEY, b"k8s"), Put("config", b"\xff")))

    assert error.code == "store-foreign"
    assert ETCD_KEY in error.detail
    assert "root of its own" in error.fix


async def test_a_value_of_ours_that_is_no_value_of_ours_makes_it_somebody_elses() -> None:
    error = await refused_by(await holding(Put("networks/web", b"<html>")))

    assert error.code == "store-foreign"
    assert "networks/web" in error.detail


async def test_a_cluster_without_its_sentinel_is_not_founded_anew() -> None:
    async with running("memory://") as api:
        await api.network()
        async with await open_store(api.url) as store:
            entries = (await store.list("")).entries
    state = await holding(*(Put(e.key, e.value) for e in entries if e.key != keys.CLUSTER))

    error = await refused_by(state)

    assert error.code == "store-broken"
    assert "meta/cluster is gone" in error.detail
    assert "kvnet restore" in error.fix


async def test_a_restore_that_was_cut_short_says_so() -> None:
    marker = Restoring("d1", "0123456789abcdef", 1.0)
    error = await refused_by(await holding(Put(keys.RESTORING, codec.encode(marker))))

    assert error.code == "store-broken"
    assert "cut short" in error.detail
    assert "same file" in error.fix


async def test_workers_may_have_come_before_the_first_controller() -> None:
    state = MemoryState()
    async with MemoryStore(state) as store:
        await add_host(store, "h1")
        await store.commit([], [Put(keys.alive("h2"), codec.encode(Alive("h2", "x", 1.0)))])

    async def opener(_url: str) -> Store:
        return MemoryStore(state)

    async with running("memory://", opener):
        assert keys.CLUSTER in state.entries


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "another"])
async def test_the_cluster_that_was_meant_is_waited_for_in_vain(is_empty: bool) -> None:
    state = MemoryState() if is_empty else await holding(Put(keys.CLUSTER, codec.encode(Cluster("aa", 1.0))))

    error = await refused_by(state, cluster_id="bb")

    assert isinstance(error, AnotherCluster)
    assert "bb" in error.detail


async def test_the_cluster_that_was_meant_is_taken() -> None:
    state = await holding(Put(keys.CLUSTER, codec.encode(Cluster("aa", 1.0))))

    async def opener(_url: str) -> Store:
        return MemoryStore(state)

    async with running("memory://", opener, cluster_id="aa") as api:
        assert (await api.get("/v1/status")).json()["cluster"] == "aa"


@pytest.mark.parametrize("kind", [StoreLoginRefused, StoreForbidden, StoreUntrusted, AnotherCluster, StoreForeign])
async def test_what_waiting_does_not_mend_ends_the_start_at_once(kind: type[KvnetError]) -> None:
    asked = 0

    async def opener(_url: str) -> Store:
        nonlocal asked
        asked += 1
        raise kind("no", fix="do something")

    with pytest.raises(kind):
        await started("etcd://127.0.0.1/x", opener)
    assert asked == 1


async def test_a_store_that_does_not_answer_is_waited_for_as_long_as_was_said() -> None:
    time, asked = FakeTime(), 0

    async def opener(_url: str) -> Store:
        nonlocal asked
        asked += 1
        time.pass_by(1.0)
        raise StoreUnavailable("etcd at 127.0.0.1:1 does not answer", fix="start it")

    with pytest.raises(StoreUnavailable):
        await started("etcd://127.0.0.1/x", opener, clock=time.clock, start_timeout_s=5.0)
    assert asked == 5


async def test_a_store_that_comes_late_is_in_time() -> None:
    time, asked = FakeTime(), 0

    async def opener(_url: str) -> Store:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreUnavailable("not yet")
        return FailingStore(MemoryStore())

    async with running("memory://", opener, clock=time.clock) as api:
        assert (await api.get("/readyz")).status_code == 200
    assert asked == 3


def test_the_process_ends_with_a_code_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "kvnet.db"
    command = [*KVNET, "controller", "--store", f"sqlite://{path}", "--listen", "127.0.0.1:0", "--cluster", "aa"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    assert done.returncode == 5
    assert "Error: cluster aa was meant, and the store is empty" in done.stderr
    assert "Fix: " in done.stderr


SECRET = "hunter2:%40x"


def test_a_password_on_the_command_line_is_shown_to_nobody() -> None:
    """Not by ps, not by the log, not by the error."""
    url = f"etcd://kvnet:{SECRET}@127.0.0.1:9/root"
    command = [*KVNET, "controller", "--store", url, "--listen", "127.0.0.1:0", "--start-timeout", "2s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(DEADLINE_S, process.kill)
        guard.start()
        seen = set()
        while process.poll() is None:
            seen.add(Path(f"/proc/{process.pid}/cmdline").read_bytes())
            if any(b"***" in one for one in seen):
                break
        _, said = process.communicate(timeout=DEADLINE_S)
        guard.cancel()

    hidden = [one for one in seen if b"***" in one]
    assert hidden, seen
    assert SECRET.encode() not in hidden[0]
    assert b"etcd://kvnet:" + b"*" * len(SECRET) + b"@127.0.0.1:9/root\0--listen\0" in hidden[0]
    assert process.returncode != 0
    assert SECRET not in said


async def test_a_network_that_lost_only_its_sentinel_comes_back_with_it() -> None:
    """The store is not harmed by refusing: put the sentinel back and everything is there."""
    state = MemoryState()

    async def opener(_url: str) -> Store:
        return MemoryStore(state)

    async with running("memory://", opener) as api:
        made = await api.network()
    sentinel = state.entries[keys.CLUSTER].value
    async with MemoryStore(state) as store:
        await store.commit([], [Delete(keys.CLUSTER)])
    await refused_by(state)
    async with MemoryStore(state) as store:
        await store.commit([], [Put(keys.CLUSTER, sentinel)])
    async with running("memory://", opener) as api:
        assert (await api.get(f"/v1/networks/{made['id']}")).status_code == 200
