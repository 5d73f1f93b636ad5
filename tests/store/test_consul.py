"""What Consul does differently from what one would think, each with a test, on real servers of 1.8."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backends.consul import ConsulMedium
from backends.consul_log import LOG, SLOTS, Record, swept_value
from backends.medium import Step
from backends.store import (
    Absent,
    Check,
    Compacted,
    Conflict,
    Delete,
    Present,
    Put,
    TooLarge,
    Unchanged,
)
from tests.servers.cluster import Cluster
from tests.store import consul_kit as kit
from tests.store.consul_kit import committed, following, next_step, opened, raw, roots, told_until

pytestmark = pytest.mark.anyio
server = kit.server
medium = kit.medium


# Versions and transactions


async def test_a_put_of_the_same_value_is_a_new_version(medium: ConsulMedium) -> None:
    versions = [await medium.commit([], [Put("k", b"same")]) for _ in range(3)]

    assert sorted(set(versions)) == versions
    [entry] = await medium.read(["k"])
    assert entry is not None
    assert entry.version == versions[-1]


async def test_a_conflict_names_every_check_that_failed(medium: ConsulMedium) -> None:
    version = await medium.commit([], [Put("there", b"")])
    checks: list[Check] = [
        Absent("there"),
        Present("missing"),
        Unchanged("gone", 7),
        Absent("free"),
        Unchanged("there", version),
    ]

    with pytest.raises(Conflict) as caught:
        await medium.commit(checks, [Put("new", b"")])

    assert caught.value.keys == ("gone", "missing", "there")
    assert await medium.read(["new"]) == [None]


async def test_deleting_unchanged_what_is_gone_conflicts_though_delete_cas_would_pass(medium: ConsulMedium) -> None:
    version = await medium.commit([], [Put("k", b"")])
    await medium.commit([], [Delete("k")])

    with pytest.raises(Conflict):
        await medium.commit([Unchanged("k", version)], [Delete("k")])


async def test_the_largest_transaction_of_the_floor_and_of_sessions_fits_with_its_log_entry(
    medium: ConsulMedium,
) -> None:
    filler = "x" * 440
    writes = [Put(f"{filler}/{number:02}", b"v" * 4000) for number in range(60)]

    revision = await medium.commit([Absent("a"), Absent("b"), Absent("c")], writes)

    found = await medium.read([write.key for write in writes])
    assert {entry.version for entry in found if entry} == {revision}


async def test_what_consul_finds_too_large_is_too_large(medium: ConsulMedium) -> None:
    with pytest.raises(TooLarge):
        await medium.commit([], [Put("k", b"x" * 450_000)])

    await medium.commit([], [Put("k", b"x" * 256 * 1024)])


async def test_keys_with_special_characters_are_encoded_once(server: Cluster, medium: ConsulMedium) -> None:
    keys = ["a b", "a%20b", "a?b#c", "a&b=c+d", "ü/ñ", "a%2Fb", "a;b,c"]
    await medium.commit([], [Put(key, key.encode()) for key in keys])

    assert [entry and entry.value.decode() for entry in await medium.read(keys)] == keys
    assert sorted(entry.key for entry in (await medium.scan("")).entries) == sorted(keys)
    assert [entry.key for entry in (await medium.scan("a%")).entries] == ["a%20b", "a%2Fb"]


async def test_an_empty_value_is_a_value(medium: ConsulMedium) -> None:
    await medium.commit([], [Put("k", b"")])

    [entry] = await medium.read(["k"])
    assert entry is not None
    assert entry.value == b""


async def test_reading_keys_of_which_some_are_missing_gives_the_others(medium: ConsulMedium) -> None:
    await medium.commit([], [Put(f"k{number}", b"") for number in range(0, 60, 2)])

    found = await medium.read([f"k{number}" for number in range(60)])

    assert [entry is not None for entry in found] == [number % 2 == 0 for number in range(60)]


# The log and its followers


async def test_a_change_costs_a_follower_the_change_and_not_the_prefix(medium: ConsulMedium) -> None:
    for start in range(0, 3000, 60):
        await medium.commit([], [Put(f"endpoints/{start + number}", b"x" * 200) for number in range(60)])
    async with following(medium) as steps:
        await next_step(steps)
        revision = await medium.commit([], [Put("endpoints/7", b"new"), Delete("endpoints/8")])
        assert await told_until(steps, revision) == {"endpoints/7": b"new", "endpoints/8": None}

    log, _ = await medium.read_log()
    assert log.size < 300_000


async def test_writes_of_others_are_no_progress_and_do_not_raise_the_revision(
    server: Cluster, medium: ConsulMedium
) -> None:
    """The index of an empty prefix is that of the whole store."""
    assert await medium.revision() == 0
    await raw(server, "PUT", "/v1/kv/somebody/else", b"1")
    assert await medium.revision() == 0
    revision = await medium.commit([], [Put("k", b"")])
    await raw(server, "PUT", "/v1/kv/somebody/else", b"2")

    assert await medium.revision() == revision
    assert (await medium.scan("")).revision == revision


async def test_a_deletion_between_two_looks_is_told(medium: ConsulMedium) -> None:
    """After a disconnect, a blocking query shows what is there, not what is gone."""
    start = await medium.commit([], [Put("stays", b""), Put("goes", b"")])
    revision = await medium.commit([], [Delete("goes")])

    async with following(medium, start) as steps:
        assert await told_until(steps, revision) == {"goes": None}


async def test_untold_commits_wake_nobody_but_version_their_keys(medium: ConsulMedium) -> None:
    told = await medium.commit([], [Put("k", b"")])
    first = await medium.commit([], [Put(".kvnet/sessions/s", b"")], is_told=False)
    second = await medium.commit(
        [Unchanged(".kvnet/sessions/s", first)], [Put(".kvnet/sessions/s", b"")], is_told=False
    )

    assert second > first > told
    assert await medium.revision() == told


async def test_sweeping_loses_nothing_and_late_followers_hear_of_it(medium: ConsulMedium) -> None:
    revisions = [await medium.commit([], [Put(f"k{number}", b"")]) for number in range(5)]
    async with following(medium, revisions[0]) as steps:
        await told_until(steps, revisions[-1])
        log, _ = await medium.read_log()
        old = [one for one in log.records if one.revision <= revisions[2]]
        await medium.sweep(old, swept_value(log, old), log.swept)
        newest = await medium.revision()
        assert newest > revisions[-1]
        assert (await next_step(steps)) == Step(newest, ())
    with pytest.raises(Compacted):
        await anext(medium.follow(revisions[1], lambda _: True))
    async with following(medium, revisions[3]) as steps:
        assert await told_until(steps, newest) == {"k4": b""}


async def test_a_slot_that_is_just_being_used_is_not_swept(medium: ConsulMedium) -> None:
    await medium.commit([], [Put("k", b"")])
    log, _ = await medium.read_log()
    [slot] = log.records
    stale: list[Record] = [replace(slot, revision=slot.revision - 1)]

    await medium.sweep(stale, swept_value(log, stale), log.swept)

    assert (await medium.read_log())[0] == log


async def test_a_commit_whose_slot_was_swept_takes_another(medium: ConsulMedium) -> None:
    for number in range(200):
        await medium.commit([], [Put("k", b"%d" % number)])  # some slots are used again
    log, _ = await medium.read_log()
    slots = sorted(log.records, key=lambda one: one.revision)[:60]
    await medium.sweep(slots, swept_value(log, slots), log.swept)

    revisions = [await medium.commit([], [Put("k", b"after")]) for _ in range(5)]

    assert revisions == sorted(set(revisions))


async def test_a_wiped_store_is_compacted(server: Cluster) -> None:
    root = f"wiped{next(roots)}"
    async with opened(server.url(root)) as medium:
        await medium.commit([], [Put("k", b"")])
        async with following(medium) as steps:
            await next_step(steps)
            await raw(server, "DELETE", f"/v1/kv/{root}/?recurse")
            with pytest.raises(Compacted):
                await next_step(steps)


async def test_a_restored_store_is_noticed_also_when_it_has_been_written_past_the_old_revision(server: Cluster) -> None:
    root = f"restored{next(roots)}"
    async with opened(server.url(root)) as medium:
        await medium.commit([], [Put("old", b"")])
        _, _, saved = await raw(server, "GET", "/v1/snapshot")
        lost = await medium.commit([], [Put("lost", b"")])
        assert (await raw(server, "PUT", "/v1/snapshot", saved))[0] == 200
        async with opened(server.url(root)) as other:
            assert await committed(other, Put("new", b"")) > lost
        with pytest.raises(Compacted):
            await anext(medium.follow(lost, lambda _: True))


async def test_a_scan_of_many_keys_is_one_state_with_its_revision(medium: ConsulMedium) -> None:
    for start in range(0, 6000, 60):
        revision = await medium.commit([], [Put(f"n/{start + number:05}", b"x" * 150) for number in range(60)])
    snapshot = await medium.scan("n/")

    assert len(snapshot.entries) == 6000
    assert snapshot.revision == revision
    assert [entry.key for entry in snapshot.entries] == sorted(entry.key for entry in snapshot.entries)
    assert not [entry for entry in (await medium.scan("")).entries if entry.key.startswith(".kvnet")]


async def test_the_log_is_where_an_operator_finds_it(server: Cluster) -> None:
    root = f"shown{next(roots)}"
    async with opened(server.url(root)) as medium:
        await medium.commit([], [Put("networks/a", b'{"plain":"json"}')])
    assert (await raw(server, "GET", f"/v1/kv/{root}/networks/a?raw"))[2] == b'{"plain":"json"}'
    keys = json.loads((await raw(server, "GET", f"/v1/kv/{root}/{LOG}?keys"))[2])
    assert all(key.startswith(f"{root}/{SLOTS}") for key in keys)
