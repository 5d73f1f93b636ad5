"""The SQLite store's own troubles: several processes, sudden death, and files that cannot serve."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from backends.mirror import Mirror
from backends.open import open_store
from backends.sqlite import SqliteStore
from backends.sqlite_file import APPLICATION_ID, prepare
from backends.sqlite_writer import Job, decide
from backends.store import (
    Absent,
    Broken,
    Check,
    Conflict,
    Delete,
    Present,
    Put,
    StoreError,
    Unchanged,
    Write,
)
from kvnet.errors import StoreBroken, StoreUnavailable
from tests.store.clock import VirtualClock
from tests.store.watching import plain, until, watching

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
KEYS = ["a", "b", "c/1", "c/2"]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with await SqliteStore.open(tmp_path / "store.db") as store:
        yield store


def python(code: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Another process that runs `code` as the body of an async function with `path` and `open_store`."""
    script = (
        "import asyncio, sys\nfrom backends.store import *\nfrom backends.open import open_store\n"
        "async def main(path, *arguments):\n" + textwrap.indent(textwrap.dedent(code), "    ") + "\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_four_slashes_name_the_same_file_as_three(tmp_path: Path) -> None:
    async with await open_store(f"sqlite://{tmp_path}/store.db") as store:
        await store.commit([], [Put("a", b"1")])
    async with await open_store(f"sqlite:///{tmp_path}/store.db") as store:
        entry = await store.get("a")
        assert entry is not None
        assert entry.value == b"1"


async def test_an_error_names_the_folder_as_one_would_type_it(tmp_path: Path) -> None:
    with pytest.raises(StoreBroken, match=f"^{tmp_path}/nowhere "):
        await open_store(f"sqlite:///{tmp_path}/nowhere/store.db")


WRITE_FOR_EVER = """
    async with await open_store(f"sqlite://{path}") as store:
        async def write(lane):
            for number in range(1_000_000):
                value = b"%d" % number
                key = f"{lane}/{number}"
                await store.commit([Absent(key)], [Put(key, value), Put(f"{lane}/last", value)])
                print(lane, number, flush=True)
        await asyncio.gather(*(write(lane) for lane in range(8)))
"""

COUNT = """
    async with await open_store(f"sqlite://{path}") as store:
        done = 0
        while done < int(arguments[0]):
            entry = await store.get("counter")
            more = b"%d" % (int(entry.value) + 1)
            try:
                await store.commit([Unchanged("counter", entry.version)], [Put("counter", more)])
                done += 1
            except Conflict:
                pass
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 300])
async def test_kill_9_keeps_everything_acknowledged_and_nothing_half(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "store.db"
    process = python(WRITE_FOR_EVER, path)
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(acknowledged)]
    process.send_signal(signal.SIGKILL)
    lines += [line.split() for line in process.communicate()[0].splitlines() if len(line.split()) == 2]

    async with await SqliteStore.open(path) as store:
        found = plain(await store.list(""))
        for lane, number in lines:
            assert found[f"{lane}/{number}"] == number.encode()
        for lane in range(8):
            written = [int(key.split("/")[1]) for key in found if key.startswith(f"{lane}/") and key[-1] != "t"]
            assert sorted(written) == list(range(len(written)))
            assert not written or int(found[f"{lane}/last"]) == max(written)
        await store.commit([], [Put("again", b"")])


async def test_three_processes_racing_lose_no_increment_and_watches_see_them(
    store: SqliteStore, tmp_path: Path
) -> None:
    await store.commit([], [Put("counter", b"0")])
    async with watching(store, "counter", 0) as watcher:
        processes = [python(COUNT, tmp_path / "store.db", 40) for _ in range(3)]
        await watcher.until(lambda: watcher.entries["counter"].value == b"120")
        for process in processes:
            _, errors = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0, errors


async def test_a_lost_bell_costs_a_second_not_the_change(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with await SqliteStore.open(path) as one, await SqliteStore.open(path) as two:
        shutil.rmtree(f"{path}.d")
        async with watching(one, "", 0) as watcher:
            await two.commit([], [Put("k", b"")])
            await watcher.until(lambda: "k" in watcher.entries)


async def test_a_process_that_slept_through_a_purge_catches_up(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with await SqliteStore.open(path) as sleeper, await SqliteStore.open(path) as other:
        await other.commit([], [Put("m/gone", b""), Put("m/kept", b"")])
        mirror = Mirror(sleeper, "m/")
        mirroring = asyncio.create_task(mirror.run())
        await until(lambda: len(mirror.entries) == 2)
        shutil.rmtree(f"{path}.d")  # deaf until its next look
        await other.commit([], [Delete("m/gone")])
        await other.compact()

        await until(lambda: set(mirror.entries) == {"m/kept"})
        await other.commit([], [Put("m/new", b"")])
        await until(lambda: "m/new" in mirror.entries)
        mirroring.cancel()
        await asyncio.gather(mirroring, return_exceptions=True)


async def test_a_bell_without_a_directory_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    (tmp_path / "store.db.d").write_text("in the way")
    await _require_two_to_see_each_other(path)


async def test_the_socket_of_a_killed_process_is_cleared_away(store: SqliteStore, tmp_path: Path) -> None:
    left_behind = tmp_path / "store.db.d" / "1-dead"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(left_behind))
    dead.close()
    async with await SqliteStore.open(tmp_path / "store.db") as other:  # it looks who is there
        await other.commit([], [Put("k", b"")])

        await until(lambda: not left_behind.exists())


async def test_a_store_in_a_very_deep_directory_works(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a-rather-long-name-of-a-directory"] * 6)
    folder.mkdir(parents=True)
    await _require_two_to_see_each_other(folder / "store.db")


async def _require_two_to_see_each_other(path: Path) -> None:
    async with (
        await SqliteStore.open(path) as one,
        await SqliteStore.open(path) as two,
        watching(one, "", 0) as watcher,
    ):
        await two.commit([], [Put("k", b"")])
        await watcher.until(lambda: "k" in watcher.entries)


async def test_the_file_is_its_owners_alone(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit([], [Put("k", b"")])

    for name in os.listdir(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o077 == 0, name


async def test_a_downtime_of_the_whole_site_expires_nobody(tmp_path: Path) -> None:
    clock = VirtualClock()
    path = tmp_path / "store.db"
    holder = await SqliteStore.open(path, clock=clock, sleep=clock.sleep)
    session = await holder.session(10)
    await holder.commit([], [Put("alive", b"", session.id)])
    await holder.close()
    clock.now += 100_000

    async with await SqliteStore.open(path, clock=clock, sleep=clock.sleep) as later:
        await clock.advance(8)
        assert await later.get("alive") is not None
        resumed = await later.session(10, resume=session.id)
        await clock.advance(30)

        assert await later.get("alive") is not None
        assert not resumed.is_lost


async def test_old_deletions_are_forgotten_and_the_rest_stays(store: SqliteStore, tmp_path: Path) -> None:
    for number in range(20):
        await store.commit([], [Put(f"k/{number}", b"")])
    for number in range(0, 20, 2):
        await store.commit([], [Delete(f"k/{number}")])
    await store.compact(keep=3)

    with sqlite3.connect(tmp_path / "store.db") as connection:
        deleted = connection.execute("SELECT count(*) FROM entries WHERE value IS NULL").fetchone()[0]
    connection.close()
    assert deleted == 3
    assert len((await store.list("k/")).entries) == 10


async def test_a_file_that_is_replaced_under_it_is_not_served(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit([], [Put("k", b"")])
    async with watching(store, "", 0) as watcher:
        (tmp_path / "store.db").rename(tmp_path / "moved.db")
        await watcher.until(lambda: watcher.error is not None)

    assert isinstance(watcher.error, Broken)
    with pytest.raises(Broken, match="moved, removed or replaced"):
        await store.commit([], [Put("k", b"")])


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"hello, I am a text file\n" * 100)


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title)")
    connection.commit()
    connection.close()


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (key)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


def _directory(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/null")


def _damaged(path: Path) -> None:
    async def fill() -> None:
        async with await SqliteStore.open(path) as store:
            for number in range(100):
                await store.commit([], [Put(f"k/{number}", os.urandom(500))])

    asyncio.run(fill())
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_not_a_database, "not a SQLite database"),
        (_foreign, "database of another program"),
        (_newer, "newer kvnet"),
        (_directory, "is a directory"),
        (_device, "is not a file"),
        (_damaged, "damaged"),
    ],
)
async def test_a_file_that_cannot_serve_is_refused_with_reason_and_fix_and_left_as_it_is(
    tmp_path: Path, make: object, says: str
) -> None:
    path = tmp_path / "store.db"
    assert callable(make)
    await asyncio.to_thread(make, path)
    before = path.read_bytes() if path.is_file() else b""

    with pytest.raises(StoreBroken, match=says) as refused:
        await open_store(f"sqlite://{path}")

    assert refused.value.code == "store-broken"
    assert refused.value.fix
    assert str(path) in refused.value.detail
    assert not path.is_file() or path.read_bytes() == before


async def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreBroken, match="is not a directory") as refused:
        await open_store(f"sqlite://{tmp_path}/missing/store.db")

    assert "mkdir -p" in refused.value.fix


async def test_a_locked_file_is_unavailable_not_broken(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await SqliteStore.open(path)).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            await asyncio.to_thread(prepare, path, busy_timeout_s=0.01)
    finally:
        holder.close()


READ_ONLY = """
    import os
    import backends.sqlite  # while it still may read the libraries
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        await open_store(f"sqlite://{path}")
    except Exception as error:
        print(type(error).__name__, error.detail, "|", error.fix)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_file_of_somebody_else_is_said_to_be_not_writable(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    for parent in [tmp_path, *list(tmp_path.parents)[:3]]:
        parent.chmod(0o755)
    if what == "file":
        await (await SqliteStore.open(folder / "store.db")).close()
        (folder / "store.db").chmod(0o644)

    out, errors = await asyncio.to_thread(python(READ_ONLY, folder / "store.db").communicate)

    assert out.startswith("StoreBroken"), errors
    assert "not writable for user 65534" in out


FILL_THE_DISK = """
    import subprocess
    from pathlib import Path
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], check=True)
    ballast = Path(path) / "ballast"
    ballast.write_bytes(bytes(300_000))
    async with await open_store(f"sqlite://{path}/store.db") as store:
        number = 0
        while True:
            try:
                await store.commit([], [Put(f"k/{number}", b"x" * 10_000)])
            except StoreError as error:
                print(type(error).__name__, error, flush=True)
                break
            number += 1
        assert len((await store.list("k/")).entries) == number > 10
        assert await store.get(f"k/{number}") is None
        print("still reads", flush=True)
        ballast.unlink()
        await store.commit([], [Put("more", b"x" * 10_000)])
        print("writes again", flush=True)
"""


@pytest.mark.kernel
async def test_a_full_disk_is_broken_loses_nothing_still_reads_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    process = python(FILL_THE_DISK, tmp_path, prefix=("unshare", "-Urm"))
    out, errors = await asyncio.to_thread(process.communicate)

    assert "Broken" in out, errors
    assert "disk is full" in out
    assert "still reads" in out, errors
    assert "writes again" in out, errors


checks = st.one_of(
    st.builds(Absent, st.sampled_from(KEYS)),
    st.builds(Present, st.sampled_from(KEYS)),
    st.builds(Unchanged, st.sampled_from(KEYS), st.integers(1, 12)),
)
writes = st.lists(
    st.one_of(st.builds(Put, st.sampled_from(KEYS), st.binary(max_size=3)), st.builds(Delete, st.sampled_from(KEYS))),
    max_size=3,
    unique_by=lambda write: write.key,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.lists(checks, max_size=2), writes), max_size=6), max_size=6))
def test_a_group_decides_like_one_transaction_after_the_other(
    groups: list[list[tuple[list[Check], list[Write]]]],
) -> None:
    asyncio.run(_compare_with_memory(groups))


async def _compare_with_memory(groups: list[list[tuple[list[Check], list[Write]]]]) -> None:
    model = MemoryStore(MemoryState())
    rows: dict[str, tuple[bytes | None, int]] = {}
    revision = 0
    for group in groups:
        known = {key: version for key, (value, version) in rows.items() if value is not None}
        decision = decide([Job(*job) for job in group], known, revision)
        expected = [await _outcome(model, *job) for job in group]

        assert [_plain_outcome(outcome) for outcome in decision.outcomes] == expected
        rows |= {key: (value, version) for key, value, version, _ in decision.rows.values()}
        revision = decision.revision
    entries = (await model.list("")).entries
    assert {key: row for key, row in rows.items() if row[0] is not None} == {
        entry.key: (entry.value, entry.version) for entry in entries
    }


async def _outcome(model: MemoryStore, checks: list[Check], writes: list[Write]) -> object:
    try:
        return await model.commit(checks, writes)
    except Conflict as conflict:
        return conflict.keys


def _plain_outcome(outcome: int | StoreError) -> object:
    return outcome.keys if isinstance(outcome, Conflict) else outcome


async def test_a_group_of_thousands_is_written_whole(store: SqliteStore) -> None:
    rng = random.Random(1)
    outcomes = await asyncio.gather(
        *(store.commit([], [Put(f"{number}/{part}", rng.randbytes(20)) for part in range(20)]) for number in range(300))
    )

    assert len(set(outcomes)) == 300
    assert len((await store.list("")).entries) == 6000
