"""A cluster goes into a backup and comes back the same, in any store; what is damaged or half done is no cluster."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from backends.open import open_store
from backends.store import Delete, Put, Store, Unavailable, Unknown
from controller import restore as restoring
from controller.requests import HoldRequest, NameRequest, PortRequest
from controller.restore import Restore, Restored
from controller.snapshot import LEFT_OUT, Backup, pack, unpack
from kvnet import codec, keys
from kvnet.errors import (
    AnotherCluster,
    BackupUnusable,
    StoreBroken,
    StoreForeign,
    StoreNotEmpty,
)
from kvnet.marks import Cluster as Identity
from kvnet.model import DockerFields, NetworkObserved, Observed
from tests.unit.controller.kit import (
    ME,
    FailingStore,
    FakeTime,
    Fault,
    Killed,
    add_host,
    endpoint,
    eventually,
    network,
    opened,
)

pytestmark = pytest.mark.anyio

HOSTS = ("h1", "h2", "h3")


async def populated(seed: int, networks: int, endpoints: int) -> MemoryState:
    """A cluster with a past: things were made, and some removed again."""
    rng, state = random.Random(seed), MemoryState()
    async with MemoryStore(state) as store, opened(store, seed=seed) as cluster:
        for host in HOSTS:
            await add_host(store, host, alive=rng.random() < 0.7)
        for i in range(networks):
            await cluster.networks.create(network(f"n{i}", driver="routed" if i % 2 else "overlay"), ME)
            for j in range(endpoints):
                ports = (PortRequest(80), PortRequest(443, 445)) if j % 2 else ()
                labels = {"note": rng.choice(["", "ü", "x" * 900])}
                await cluster.endpoints.create(
                    f"n{i}", endpoint(f"e{j}", rng.choice(HOSTS), labels=labels, ports=ports), ME
                )
            if endpoints and rng.random() < 0.5:
                await cluster.endpoints.delete(f"n{i}", "e0", ME)
        if networks:
            docker = DockerFields({"driver": "overlay"}, labels={"odd": "a\nb"}, host="h1")
            held = await cluster.holds.create(HoldRequest("h1"), ME)
            made = await cluster.networks.create(network("", holds=(held.id,), naming=True, docker=docker), ME)
            if rng.random() < 0.5:
                await cluster.naming.name(made.value.id, NameRequest("of-docker"), ME)
        await store.commit([], [Put(keys.observed("h1"), codec.encode(Observed("h1", 0.0, {"0" * 12: _seen(5)})))])
    return state


def _seen(version: int) -> NetworkObserved:
    return NetworkObserved(version)


async def backup_of(state: MemoryState) -> Backup:
    async with MemoryStore(state) as store:
        return unpack(list(pack(await store.list(""), "memory", 1_800_000_000.0)))


async def restored(store: Store, backup: Backup, **options: bool) -> Restored:
    return await Restore(store, backup, actor="tester", clock=FakeTime().clock, rng=random.Random(3), **options).run()


def lasting(entries: dict[str, bytes]) -> dict[str, bytes]:
    """What a restore must bring back: all but the journal, its seals and what belongs to one store."""
    return {k: v for k, v in entries.items() if not k.startswith((*LEFT_OUT, keys.JOURNAL, keys.SEALS))}


async def contents(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await store.list("")).entries}


def values(state: MemoryState) -> dict[str, bytes]:
    return {key: entry.value for key, entry in state.entries.items()}


@asynccontextmanager
async def target(kind: str) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        url = "memory://" if kind == "memory" else f"sqlite://{Path(folder)}/kvnet.db"
        async with await open_store(url) as store:
            yield store


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(0, 5), st.sampled_from(["memory", "sqlite"]))
def test_what_comes_back_is_what_went_in(seed: int, networks: int, endpoints: int, kind: str) -> None:
    async def round_trip() -> None:
        source = await populated(seed, networks, endpoints)
        async with target(kind) as store:
            await restored(store, await backup_of(source))
            assert lasting(await contents(store)) == lasting(values(source))
            async with opened(store, seed=99) as cluster:
                assert cluster.standing.trouble is None
                assert (await cluster.ipam.check()).findings == ()
                await cluster.networks.create(network("next"), ME)

    asyncio.run(round_trip())


async def test_what_only_means_something_in_its_own_store_stays_there() -> None:
    state = await populated(1, 2, 2)

    backup = await backup_of(state)

    assert not any(key.startswith(("alive/", "leader/", "observed/", "journal/floor")) for key in backup.values)
    async with MemoryStore() as store:
        await restored(store, backup)
        kept = await contents(store)
    assert not any(key.startswith(("alive/", "leader/", "observed/")) for key in kept)
    assert keys.RESTORING not in kept


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "answer-lost"])
@pytest.mark.parametrize("replace", [False, True], ids=["empty", "replace"])
async def test_a_restore_that_dies_at_any_call_is_no_cluster_and_goes_on_when_it_is_repeated(
    kill: bool, before: bool, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "MAX_OPERATIONS", 6)  # many transactions
    backup = await backup_of(await populated(5, 2, 3))
    old = await populated(6, 2, 1) if replace else MemoryState()
    old_id = codec.decode(Identity, old.entries[keys.CLUSTER].value).id if replace else ""
    for at in range(1, 200):
        state = MemoryState()
        state.entries, state.revision = dict(old.entries), old.revision
        store = FailingStore(MemoryStore(state), Fault(at, kill, before))
        try:
            await restored(store, backup, replace=replace, other=replace)
        except (Killed, Unknown, Unavailable):
            there = state.entries.get(keys.CLUSTER)
            is_old = there is not None and codec.decode(Identity, there.value).id == old_id
            is_whole = there is not None and not is_old
            if is_whole:
                assert lasting(backup_values(backup)) == lasting(values(state))
            elif not is_old and keys.RESTORING in state.entries:
                await refuses_to_start(state)
        async with MemoryStore(state) as again:
            if keys.RESTORING in state.entries:
                assert (await restored(again, backup)).resumed
            elif not (keys.CLUSTER in state.entries and lasting(values(state)) == lasting(backup_values(backup))):
                await restored(again, backup, replace=replace, other=replace)
            assert lasting(await contents(again)) == lasting(backup_values(backup))
        if store.calls < at:
            return
    raise AssertionError("it never ran to its end")


def backup_values(backup: Backup) -> dict[str, bytes]:
    return dict(backup.values)


async def refuses_to_start(state: MemoryState) -> None:
    revision = state.revision
    with pytest.raises(StoreBroken, match="cut short"):
        async with MemoryStore(state) as store, opened(store):
            pass
    assert state.revision == revision


async def test_a_store_that_holds_something_is_left_alone_unless_told() -> None:
    backup = await backup_of(await populated(1, 1, 1))
    same, other = await populated(1, 3, 0), await populated(2, 1, 1)
    before_same, before_other = values(same), values(other)

    async with MemoryStore(same) as store:
        with pytest.raises(StoreNotEmpty):
            await restored(store, backup)
        assert await contents(store) == before_same
        done = await restored(store, backup, replace=True)
        assert done.removed > 0
        assert lasting(await contents(store)) == lasting(backup_values(backup))
    async with MemoryStore(other) as store:
        for options in ({}, {"replace": True}):
            with pytest.raises(AnotherCluster):
                await restored(store, backup, **options)
        assert await contents(store) == before_other
        await restored(store, backup, replace=True, other=True)
        assert lasting(await contents(store)) == {
            **lasting(backup_values(backup)),
            # What hosts say of themselves is newer than any backup.
            **{k: v for k, v in before_other.items() if k.startswith(keys.HOSTS)},
        }


async def test_somebody_elses_data_are_never_removed() -> None:
    backup = await backup_of(await populated(1, 1, 1))
    async with MemoryStore() as store:
        await store.commit([], [Put("registry/pods", b"k8s")])
        with pytest.raises(StoreForeign):
            await restored(store, backup, replace=True, other=True)
        assert await contents(store) == {"registry/pods": b"k8s"}


async def test_hosts_that_came_before_the_restore_are_kept_as_they_are() -> None:
    backup = await backup_of(await populated(1, 1, 1))
    async with MemoryStore() as store:
        await add_host(store, "h1")
        await add_host(store, "h9")
        mine = await contents(store)
        await restored(store, backup)
        there = await contents(store)
    assert all(there[key] == value for key, value in mine.items())
    assert keys.host("h2") in there


async def test_running_controllers_go_on_after_a_wipe_and_a_restore(time: FakeTime) -> None:
    state = MemoryState()
    async with MemoryStore(state) as store, opened(store, time) as cluster:
        await add_host(store, "h1")
        await cluster.networks.create(network("kept"), ME)
        backup = await backup_of(state)
        await cluster.networks.create(network("lost"), ME)
        await store.commit([], [Delete(key) for key in state.entries])
        await eventually(lambda: cluster.standing.trouble is not None)

        async with MemoryStore(state) as operator:
            await Restore(operator, backup, actor="tester", clock=time.clock).run()

        await eventually(lambda: cluster.standing.trouble is None)
        await eventually(lambda: [n.value.name for n in cluster.networks.list()] == ["kept"])
        await cluster.networks.create(network("next"), ME)
        assert (await cluster.ipam.check()).findings == ()
        kinds = [e.kind for r in sorted(cluster.events._kept) for e in cluster.events.events_of(r) or ()]
        assert kinds[-2:] == ["cluster.restored", "network.created"]


async def lines_of(seed: int = 1) -> list[bytes]:
    async with MemoryStore(await populated(seed, 2, 2)) as store:
        return list(pack(await store.list(""), "memory", 0.0))


def cut_off(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def cut_in_a_line(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3][:10]]


def a_byte_changed(lines: list[bytes]) -> list[bytes]:
    at = next(i for i, line in enumerate(lines) if b'"e1' in line)
    return [*lines[:at], lines[at].replace(b"e1", b"e7"), *lines[at + 1 :]]


def a_line_gone(lines: list[bytes]) -> list[bytes]:
    return lines[:4] + lines[5:]


def a_line_twice(lines: list[bytes]) -> list[bytes]:
    return lines[:5] + lines[4:]


def something_appended(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[1]]


def of_a_newer_kvnet(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"kvnet_backup":1', b'"kvnet_backup":2'), *lines[1:]]


def of_a_newer_schema(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"schema":1', b'"schema":9'), *lines[1:]]


def something_else(_lines: list[bytes]) -> list[bytes]:
    return [b"<html>\n"]


def nothing(_lines: list[bytes]) -> list[bytes]:
    return []


DAMAGES = {
    cut_off: "cut off after",
    cut_in_a_line: "line 4 is cut off",
    a_byte_changed: "SHA-256",
    a_line_gone: "SHA-256",
    a_line_twice: "a second time",
    something_appended: "after its end",
    of_a_newer_kvnet: "newer kvnet",
    of_a_newer_schema: "newer kvnet",
    something_else: "not a backup",
    nothing: "is empty",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_backup_that_is_not_whole_is_refused_with_the_reason(damage: object) -> None:
    with pytest.raises(BackupUnusable) as refusal:
        unpack(damage(await lines_of()))  # type: ignore[operator]
    assert DAMAGES[damage] in refusal.value.detail  # type: ignore[index]
    assert refusal.value.fix


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_single_changed_byte_passes(data: st.DataObject) -> None:
    whole = b"".join(asyncio.run(lines_of()))
    at = data.draw(st.integers(0, len(whole) - 2))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BackupUnusable):
        unpack(bytes(changed).splitlines(keepends=True))


async def test_a_value_that_could_not_be_read_is_kept_as_it_is_and_told() -> None:
    state = await populated(1, 1, 1)
    async with MemoryStore(state) as store:
        await store.commit([], [Put(keys.network("0" * 12), b"\xff\x00")])

    backup = await backup_of(state)

    assert backup.values[keys.network("0" * 12)] == b"\xff\x00"
    assert any("cannot be read" in finding.detail for finding in backup.findings(0.0))


async def test_a_store_without_a_whole_cluster_is_not_backed_up() -> None:
    state = await populated(1, 1, 1)
    async with MemoryStore(state) as store:
        await store.commit([], [Delete(keys.CLUSTER)])
        with pytest.raises(StoreBroken):
            list(pack(await store.list(""), "memory", 0.0))
