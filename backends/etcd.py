"""etcd as a medium: keys below /ROOT/, versions are `mod_revision`, transactions, watches and leases are etcd's own.

Everything maps one to one, so there is nothing private in the store and nothing to keep in step. `etcd_rpc` knows what
to do when a member fails, `etcd_errors` what an error means, `etcd_watch` how changes are followed.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from backends import etcd_wire as wire
from backends.etcd_link import read_credentials
from backends.etcd_rpc import Cluster
from backends.etcd_start import meet
from backends.etcd_watch import open_watch
from backends.medium import PRIVATE, Step
from backends.store import (
    Absent,
    Change,
    Check,
    Compacted,
    Conflict,
    Entry,
    Present,
    Put,
    Revision,
    Room,
    SessionLost,
    Snapshot,
    Unavailable,
    Write,
)
from backends.tls_probe import wrong_file
from backends.url import ServerUrl, Tls
from kvnet.errors import StoreUntrusted

if TYPE_CHECKING:
    from grpc import ChannelCredentials

# Pairs of a list in one answer: bounds how much a member has to hold and how long it is busy with one request.
PAGE = 2000
# A list over several pages starts again when its revision was compacted meanwhile.
LIST_ATTEMPTS = 3
# A commit goes again when what it required did not hold, and holds when one looks why.
COMMIT_ATTEMPTS = 3
# Its default limit (--max-txn-ops) is 128, of checks and of writes each.
ROOM = Room(together=240, of_a_kind=120)
LEASE = re.compile(r"[0-7][0-9a-f]{15}")
# Of ASCII the backslash alone is ever told so: no key of ours has a second name.
_TOLD = re.compile(rb"\\x([89a-f][0-9a-f]|5c(?=x))")
_LIKE_TOLD = re.compile(rb"\\(?=x(?:[89a-f][0-9a-f]|5cx))")


class EtcdMedium:
    """A `Medium`; made by `connect`. `cluster` is also what `EtcdSessions` speaks to."""

    def __init__(self, cluster: Cluster, root: str) -> None:
        self.cluster = cluster
        self._root = f"/{root}/".encode()
        self._followed = 0  # the cluster whose changes were followed last

    async def revision(self) -> Revision:
        answer = await self.cluster.ask(wire.RANGE, wire.only_header(self._root))
        return answer.header.revision

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        if not keys:
            return []
        gets = [wire.get_op(self._inside(key)) for key in keys]
        answer = await self.cluster.ask(wire.TXN, wire.txn([], gets, []))
        found = (op.response_range.kvs for op in answer.responses)
        return [self._entry(kvs[0]) if kvs else None for kvs in found]

    async def scan(self, prefix: str) -> Snapshot:
        for _ in range(LIST_ATTEMPTS):
            try:
                return await self._scan(prefix)
            except Compacted:
                continue
        raise Unavailable(f"etcd compacted the list of {prefix!r} while it was read, {LIST_ATTEMPTS} times")

    async def _scan(self, prefix: str) -> Snapshot:
        start = self._root + prefix.encode()
        end = _after_all(start)
        entries: list[Entry] = []
        revision = 0
        cluster = 0
        while True:
            answer = await self.cluster.ask(wire.RANGE, wire.get_range(start, end, limit=PAGE, revision=revision))
            cluster = cluster or answer.header.cluster_id
            if answer.header.cluster_id != cluster:
                raise Compacted("etcd was set up anew between two pages")
            revision = revision or answer.header.revision
            entries.extend(map(self._entry, answer.kvs))
            if not answer.more:
                break
            start = answer.kvs[-1].key + b"\0"
        wants_private = prefix.startswith(PRIVATE)
        shown = tuple(entry for entry in entries if wants_private or not entry.key.startswith(PRIVATE))
        return Snapshot(shown, revision)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write], *, is_told: bool = True) -> Revision:
        """
        `Unavailable` while another cluster stands in the place of the one that is followed: until the follower has
        begun anew there, and so ended every watch, nobody can have decided on what that cluster holds. What was decided
        before and comes after that fails its own checks: every commit of a controller requires
        `Unchanged(meta/cluster)`. An empty cluster has no such key; a restore puts it last, at a revision of its own;
        and should that number be the old one by chance, the mirrors have told by then that the store went back. What
        was under way while the old cluster vanished is `Unknown`, as with any answer that is lost.
        """
        request = wire.Transaction()
        for check in checks:
            self._require(check, request)
        for write in writes:
            self._write(write, request)
        for _ in range(COMMIT_ATTEMPTS):
            if self._followed not in (0, self.cluster.cluster_id):
                raise Unavailable("etcd was set up anew, and what it holds was not read yet; nothing was written")
            answer = await self.cluster.ask(wire.TXN, request, is_repeatable=not writes)
            if answer.succeeded:
                return answer.header.revision
            if failed := _failed(checks, await self._versions([check.key for check in checks])):
                raise Conflict(failed)
        raise Unavailable(f"what was required changed to and fro, {COMMIT_ATTEMPTS} times; nothing was written")

    async def _versions(self, keys: Sequence[str]) -> list[Revision]:
        """As of one revision. Asked only after a lost race: a commit that brings the question along costs 3 % more."""
        gets = [wire.get_op(self._inside(key), keys_only=True) for key in keys]
        answer = await self.cluster.ask(wire.TXN, wire.txn([], gets, []))
        found = (op.response_range.kvs for op in answer.responses)
        return [kvs[0].mod_revision if kvs else 0 for kvs in found]

    async def follow(self, after: Revision | None, is_wanted: Callable[[str], bool]) -> AsyncIterator[Step]:
        """All is told, wanted or not: etcd sends the values anyway."""
        start = await self.revision() if after is None else await self._require_kept(after)
        watch = await open_watch(self.cluster, self._root, _after_all(self._root), start)
        try:
            self._begin(watch.cluster_id, is_anew=after is None)
            yield Step(start, ())
            while True:
                answer = await watch.next()
                if answer.events:
                    changes = tuple(self._changes(answer.events))
                    yield Step(answer.events[-1].kv.mod_revision, changes)
        finally:
            watch.stop()

    def _begin(self, cluster: int, *, is_anew: bool) -> None:
        """
        Raises:
            Compacted: this is not the cluster that was followed before. Its revisions mean something else.
        """
        if self._followed not in (0, cluster) and not is_anew:
            raise Compacted("another etcd cluster stands in the place of the one before: it was wiped or restored")
        self._followed = cluster

    async def _require_kept(self, after: Revision) -> Revision:
        """A watch would wait for a revision that is not reached yet, perhaps for ever; of one that is too old it
        would only tell after it had begun.
        """
        reached = await self.revision()
        if after > reached:
            raise Compacted(f"revision {after} is ahead of etcd's {reached}: it went back in time")
        if after < reached:
            await self.cluster.ask(wire.RANGE, wire.only_header(self._root, revision=after + 1))
        return after

    async def close(self) -> None:
        await self.cluster.close()

    def _inside(self, key: str) -> bytes:
        return self._root + as_bytes(key)

    def _outside(self, key: bytes) -> str:
        return as_text(key[len(self._root) :])

    def _entry(self, found: wire.KeyValue) -> Entry:
        return Entry(self._outside(found.key), found.value, found.mod_revision)

    def _changes(self, events: Sequence[wire.Event]) -> Iterator[Change]:
        for event in events:
            found = event.kv  # each look into a message costs as much as a call
            key = self._outside(found.key)
            if not key.startswith(PRIVATE):
                is_gone = event.type == wire.DELETED
                yield Change(key, None if is_gone else Entry(key, found.value, found.mod_revision))

    def _require(self, check: Check, request: wire.Transaction) -> None:
        key = self._inside(check.key)
        if isinstance(check, Absent):
            request.require_version(key, wire.EQUAL, 0)
        elif isinstance(check, Present):
            request.require_version(key, wire.GREATER, 0)
        else:
            request.require_version(key, wire.EQUAL, check.version or -1)  # to etcd, 0 is "does not exist"

    def _write(self, write: Write, request: wire.Transaction) -> None:
        key = self._inside(write.key)
        if isinstance(write, Put):
            request.put(key, write.value, 0 if write.session is None else _lease(write.session))
        else:
            request.delete(key)


class EtcdSessions:
    """`Sessions` as etcd's own leases. A lease keeps the TTL that it was granted with, whatever a refresh asks for."""

    def __init__(self, medium: EtcdMedium) -> None:
        self._medium = medium

    async def grant(self, ttl_s: float) -> str:
        answer = await self._medium.cluster.ask(wire.GRANT, wire.grant(math.ceil(ttl_s)))
        return f"{answer.ID:016x}"

    async def refresh(self, session_id: str, ttl_s: float) -> None:
        answer = await self._medium.cluster.ask(wire.KEEP_ALIVE, wire.keep_alive(_lease(session_id)))
        if answer.TTL <= 0:
            raise SessionLost(f"session {session_id} has expired or was ended")

    async def revoke(self, session_id: str) -> None:
        try:
            await self._medium.cluster.ask(wire.REVOKE, wire.revoke(_lease(session_id)))
        except SessionLost:
            return

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        return await self._medium.commit(checks, writes)

    def seen(self, entry: Entry) -> Entry:
        return entry

    async def run(self) -> None:
        """etcd expires leases by itself."""
        await asyncio.get_running_loop().create_future()


async def connect(url: ServerUrl, *, must_answer: bool = True, rng: random.Random) -> EtcdMedium:
    """
    Raises:
        StoreUnavailable: no endpoint answers (no error if not `must_answer`).
        StoreUntrusted, StoreLoginRefused, StoreForbidden, AnotherCluster, StoreBroken: an operator has to act.
        Invalid: a file cannot be read.
    """
    credentials = await asyncio.to_thread(_credentials, url, url.tls) if url.tls else None
    cluster = Cluster(url, credentials, rng)
    try:
        await meet(cluster, url, must_answer=must_answer)
    except BaseException:
        await cluster.close()
        raise
    return EtcdMedium(cluster, url.root)


def _credentials(url: ServerUrl, tls: Tls) -> ChannelCredentials:
    problem = wrong_file(tls)
    if problem:
        raise StoreUntrusted(f"{url}: {problem}", fix="ca=, cert= and key= name files in PEM")
    return read_credentials(tls)


def as_text(key: bytes) -> str:
    """Somebody else may have put keys there that are no text. Such a byte is told as `\\xff`: whoever tells of a key,
    in JSON, to a worker, in the journal's seals, must be able to write it."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return _LIKE_TOLD.sub(rb"\\x5c", key).decode(errors="backslashreplace")
    return text if "\\x" not in text else _LIKE_TOLD.sub(rb"\\x5c", key).decode()


def as_bytes(key: str) -> bytes:
    data = key.encode()
    return data if b"\\x" not in data else _TOLD.sub(lambda found: bytes.fromhex(found[1].decode()), data)


def _after_all(prefix: bytes) -> bytes:
    """The end of the range of all keys that start with it. Keys are text, so its last byte is never 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _lease(session_id: str) -> int:
    if not LEASE.fullmatch(session_id) or not int(session_id, 16):
        raise SessionLost(f"{session_id!r} is no session of this store")
    return int(session_id, 16)


def _failed(checks: Sequence[Check], versions: Sequence[Revision]) -> list[str]:
    """The keys whose checks do not hold. Each version is that of the check's key, 0 if there is none."""

    def holds(check: Check, version: Revision) -> bool:
        if isinstance(check, Absent):
            return version == 0
        return version > 0 and (isinstance(check, Present) or version == check.version)

    return sorted({check.key for check, version in zip(checks, versions, strict=True) if not holds(check, version)})
