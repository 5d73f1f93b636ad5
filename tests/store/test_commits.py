"""The conformance suite: what a commit promises, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from backends.store import (
    MAX_KEY_BYTES,
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Absent,
    Check,
    Conflict,
    Delete,
    Present,
    Put,
    Store,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)
from tests.store.harness import Harness
from tests.store.real import LOST
from tests.store.watching import plain, watching

pytestmark = pytest.mark.anyio

RACERS = 64


async def test_what_is_put_is_read_back_with_the_revision_of_its_transaction(store: Store) -> None:
    revision = await store.commit([], [Put("a", b"1"), Put("b/c", b"2")])

    a, b = await store.get("a"), await store.get("b/c")

    assert a is not None
    assert b is not None
    assert (a.value, b.value) == (b"1", b"2")
    assert a.version == b.version == revision


async def test_a_missing_key_is_none(store: Store) -> None:
    assert await store.get("nothing") is None


async def test_values_are_any_bytes(store: Store) -> None:
    values = {"empty": b"", "all": bytes(range(256)), "text": "größe\n\0".encode(), "large": b"\xff" * MAX_VALUE_BYTES}
    for key, value in values.items():
        await store.commit([], [Put(f"v/{key}", value)])

    assert plain(await store.list("v/")) == {f"v/{key}": value for key, value in values.items()}
    for key, value in values.items():
        entry = await store.get(f"v/{key}")
        assert entry is not None
        assert entry.value == value


async def test_keys_may_be_unicode_and_hold_spaces_and_percent_signs(store: Store) -> None:
    keys = ["k/ä ö", "k/%2F", "k/日本", "k/a:b,c", "k/2001:db8::1", "k/😀"]
    await store.commit([], [Put(key, key.encode()) for key in keys])

    assert [entry.key for entry in (await store.list("k/")).entries] == sorted(keys)


async def test_a_list_has_what_is_under_the_prefix_sorted_as_of_one_revision(store: Store) -> None:
    await store.commit([], [Put("a/2", b""), Put("a/1", b""), Put("ab", b""), Put("b/1", b"")])
    revision = await store.commit([], [Put("a/1/x", b"")])

    slash, bare, everything = await store.list("a/"), await store.list("a"), await store.list("")

    assert [entry.key for entry in slash.entries] == ["a/1", "a/1/x", "a/2"]
    assert [entry.key for entry in bare.entries] == ["a/1", "a/1/x", "a/2", "ab"]
    assert len(everything.entries) == 5
    assert slash.revision >= revision


async def test_an_empty_prefix_has_a_revision_too(store: Store) -> None:
    revision = await store.commit([], [Put("elsewhere", b"")])
    snapshot = await store.list("nothing/")

    assert snapshot.entries == ()
    assert snapshot.revision >= revision


async def test_a_long_list_is_complete(store: Store) -> None:
    for start in range(0, 6000, 60):
        await store.commit([], [Put(f"long/{number:05}", b"%d" % number) for number in range(start, start + 60)])

    entries = (await store.list("long/")).entries

    assert [entry.key for entry in entries] == [f"long/{number:05}" for number in range(6000)]
    assert all(entry.value == b"%d" % number for number, entry in enumerate(entries))


async def test_revisions_grow(store: Store) -> None:
    revisions = [await store.commit([], [Put("k", b"%d" % number)]) for number in range(5)]

    assert revisions == sorted(set(revisions))


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (Absent("there"), False),
        (Absent("missing"), True),
        (Present("there"), True),
        (Present("missing"), False),
        (Unchanged("missing", 1), False),
        (Unchanged("there", 999_999), False),
    ],
)
async def test_writes_happen_only_if_the_check_holds(store: Store, check: Check, holds: bool) -> None:
    await store.commit([], [Put("there", b"")])
    writes: list[Write] = [Put("a", b""), Delete("there")]

    if holds:
        await store.commit([check], writes)
    else:
        with pytest.raises(Conflict) as conflict:
            await store.commit([check], writes)
        assert conflict.value.keys == (check.key,)

    assert (await store.get("a") is not None) == holds
    assert (await store.get("there") is None) == holds


async def test_a_conflict_names_all_failed_checks_sorted_and_writes_nothing(store: Store) -> None:
    revision = await store.commit([], [Put("z", b"0"), Put("m", b"0")])

    with pytest.raises(Conflict) as conflict:
        await store.commit(
            [Absent("z"), Unchanged("m", revision), Present("b"), Present("z")], [Put("new", b""), Put("m", b"1")]
        )

    assert conflict.value.keys == ("b", "z")
    assert plain(await store.list("")) == {"z": b"0", "m": b"0"}


async def test_a_check_may_be_about_a_key_that_is_written(store: Store) -> None:
    first = await store.commit([Absent("k")], [Put("k", b"1")])
    second = await store.commit([Unchanged("k", first)], [Put("k", b"2")])
    await store.commit([Unchanged("k", second)], [Delete("k")])

    assert await store.get("k") is None


async def test_a_version_is_not_reused_when_a_key_is_made_again(store: Store) -> None:
    versions = set()
    for _ in range(4):
        versions.add(await store.commit([Absent("k")], [Put("k", b"same")]))
        await store.commit([], [Delete("k")])
    stale = max(versions)
    await store.commit([], [Put("k", b"same")])

    assert len(versions) == 4
    with pytest.raises(Conflict):
        await store.commit([Unchanged("k", stale)], [Delete("k")])


async def test_an_identical_write_is_a_new_version(store: Store) -> None:
    first = await store.commit([], [Put("k", b"same")])
    second = await store.commit([], [Put("k", b"same")])
    entry = await store.get("k")

    assert second > first
    assert entry is not None
    assert entry.version == second


async def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    await store.commit([], [Delete("nothing"), Put("a", b"")])

    assert plain(await store.list("")) == {"a": b""}


async def test_a_transaction_that_changes_nothing_uses_up_its_revision(store: Store) -> None:
    async with watching(store, "", 0) as watcher:
        nothing = await store.commit([], [Delete("nothing")])
        something = await store.commit([], [Put("a", b"")])

        assert something > nothing
        await watcher.until(lambda: "a" in watcher.entries)


async def test_checks_alone_are_answered(store: Store) -> None:
    await store.commit([Absent("k")], [])
    with pytest.raises(Conflict):
        await store.commit([Present("k")], [])


async def test_of_64_racing_creators_of_one_key_exactly_one_wins(harness: Harness) -> None:
    clients = [await harness.open() for _ in range(4)]

    outcomes = await asyncio.gather(
        *(
            clients[number % 4].commit([Absent("race")], [Put("race", b"%d" % number), Put(f"mark/{number}", b"")])
            for number in range(RACERS)
        ),
        return_exceptions=True,
    )

    winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    assert len(winners) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if not isinstance(outcome, int))
    entry = await clients[0].get("race")
    assert entry is not None
    assert entry.value == b"%d" % winners[0]
    assert plain(await clients[0].list("mark/")) == {f"mark/{winners[0]}": b""}


async def test_racing_counters_lose_no_increment(harness: Harness) -> None:
    clients = [await harness.open() for _ in range(4)]
    await clients[0].commit([], [Put("counter", b"0")])

    async def count(store: Store) -> None:
        done = 0
        while done < 5:
            entry = await store.get("counter")
            assert entry is not None
            try:
                await store.commit(
                    [Unchanged("counter", entry.version)], [Put("counter", b"%d" % (int(entry.value) + 1))]
                )
            except Conflict:
                continue
            done += 1

    async with asyncio.timeout(90):
        await asyncio.gather(*(count(client) for client in clients))

    entry = await clients[0].get("counter")
    assert entry is not None
    assert int(entry.value) == 20


async def test_a_reader_never_sees_half_a_transaction(harness: Harness) -> None:
    writer, reader = await harness.open(), await harness.open()
    keys = [f"pair/{number}" for number in range(10)]

    async def write() -> None:
        for number in range(30):
            await writer.commit([], [Put(key, b"%d" % number) for key in keys])

    writing = asyncio.create_task(write())
    while not writing.done():
        snapshot = await reader.list("pair/")
        assert len({(entry.value, entry.version) for entry in snapshot.entries}) <= 1
        assert len(snapshot.entries) in {0, len(keys)}
    await writing


@pytest.mark.parametrize(
    ("checks", "writes"),
    [
        ([Absent(f"k/{number}") for number in range(31)], [Put(f"k/{number}", b"") for number in range(30)]),
        ([], [Put("k", b"x" * (MAX_VALUE_BYTES + 1))]),
        ([], [Put("a", b"x" * 160_000), Put("b", b"x" * 160_000)]),
        ([], [Put("k" * (MAX_KEY_BYTES + 1), b"")]),
    ],
    ids=["operations", "value", "transaction", "key"],
)
async def test_more_than_the_floor_is_refused_everywhere(
    store: Store, checks: list[Check], writes: list[Write]
) -> None:
    with pytest.raises(TooLarge):
        await store.commit(checks, writes)

    assert (await store.list("")).entries == ()


async def test_exactly_the_floor_is_taken(store: Store) -> None:
    half = MAX_OPERATIONS // 2
    await store.commit(
        [Absent(f"k/{number}") for number in range(half)], [Put(f"k/{number}", b"x" * 9_000) for number in range(half)]
    )

    assert len((await store.list("k/")).entries) == half


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a\nb", "\x01revision", "a\0"])
async def test_what_is_not_a_key_is_a_misuse(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await store.commit([], [Put(key, b"")])


async def test_a_key_twice_among_the_writes_is_a_misuse(store: Store) -> None:
    with pytest.raises(ValueError, match="twice"):
        await store.commit([], [Put("k", b""), Delete("k")])


@pytest.mark.needs("lose_answers")
async def test_a_lost_answer_is_unknown_and_the_write_may_be_there(harness: Harness) -> None:
    store = await harness.open()
    await harness.lose_next_answer()

    with pytest.raises(Unknown):
        await store.commit([Absent("k")], [Put("k", LOST)])

    assert plain(await store.list("")) == {"k": LOST}
    with pytest.raises(Conflict):
        await store.commit([Absent("k")], [Put("k", b"again")])


async def test_a_cancelled_caller_leaves_all_or_nothing(store: Store) -> None:
    for number in range(20):
        commit = asyncio.create_task(store.commit([], [Put(f"{number}/{part}", b"") for part in range(5)]))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
    await store.commit([], [Put("end", b"")])

    per_number: dict[str, int] = {}
    for entry in (await store.list("")).entries:
        if entry.key != "end":
            per_number[entry.key.split("/")[0]] = per_number.get(entry.key.split("/")[0], 0) + 1
    assert set(per_number.values()) <= {5}


@pytest.mark.needs("restart")
async def test_what_was_acknowledged_survives_a_restart(harness: Harness) -> None:
    store = await harness.open()
    revision = await store.commit([], [Put("k", b"kept")])

    await harness.restart()

    entry = await store.get("k")
    assert entry is not None
    assert (entry.value, entry.version) == (b"kept", revision)
    assert await store.commit([], [Put("k", b"")]) > revision


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()

    with pytest.raises(Unavailable):
        await store.get("k")
    with pytest.raises(Unavailable):
        await store.commit([], [Put("k", b"")])
