"""Consul as a medium: entries are KV pairs under the root, a commit is one transaction, and a log tells of commits.

What Consul does not do by itself, and what is done about it here:

- It cannot say what changed under a prefix: `consul_log`, one more key in every commit.
- A put of the same value is no change: every put carries a random number in the pair's `Flags`, which nobody reads.
- A denied transaction looks like a conflict, and a denied list like an empty one: `_probe`, a transaction that fails
  for certain, and for another reason if it is allowed.
- `delete-cas` of a missing key succeeds, and there is no check that a key exists: checks are operations of their own,
  and `Present` is a `get`, which fails its transaction without the key.

Consul's own sessions are not used (`stored_sessions` says why). Never repeats a write that may have been done.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import quote

from backends import consul_json
from backends.consul_follow import follow
from backends.consul_http import ConsulHttp, Forbidden, LoginRefused, NotServing, Reply, Untrusted
from backends.consul_json import Operation
from backends.consul_log import LOG, SWEPT, Log, Record, Slots, own_record, parse_log, record_value
from backends.lease import Clock, Sleep
from backends.medium import PRIVATE, SILENCE_S, Step
from backends.store import (
    Absent,
    Broken,
    Check,
    Conflict,
    Entry,
    Put,
    Refused,
    Revision,
    Snapshot,
    StoreError,
    TooLarge,
    Unavailable,
    Unchanged,
    Write,
)
from backends.url import ServerUrl
from kvnet.errors import StoreBroken, StoreForbidden, StoreLoginRefused, StoreUnavailable, StoreUntrusted

MAX_OPERATIONS = 64  # Consul's limit, checks and reads included
READ_ROUNDS = 8
SLOT_ATTEMPTS = 3
BLOCKING_WAIT_S = 10  # Consul adds up to a sixteenth
# How long a cluster may elect its leader while we start.
ELECTION_BOUND_S = 15.0
ELECTION_PAUSE_S = 0.5
# Decoded beside the loop from here on: 1 MB takes about 10 ms.
LARGE_BYTES = 1 << 20
NEVER = 2**63  # no key has this index
DENIED = "Permission denied"
MISSING = "doesn't exist"


async def connect(
    url: ServerUrl,
    *,
    must_answer: bool = True,
    rng: random.Random,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> ConsulMedium:
    """A medium that is known to let us read and write under the root; nothing is written.

    Raises:
        StoreUnavailable: nobody answers, or the servers have no leader for a while (unless not `must_answer`).
        StoreLoginRefused, StoreForbidden, StoreUntrusted, StoreBroken: what is wrong, and what to do.
    """
    try:
        medium = ConsulMedium(ConsulHttp(url, clock=clock), url.root, rng=rng, clock=clock, sleep=sleep)
    except LoginRefused as error:
        raise StoreLoginRefused(f"{url}: {error}") from error
    try:
        await _until_welcome(medium, must_answer, rng, clock, sleep)
    except BaseException as error:
        await medium.close()
        if isinstance(error, StoreError):
            raise _at_start(url, error) from error
        raise
    return medium


async def _until_welcome(
    medium: ConsulMedium, must_answer: bool, rng: random.Random, clock: Clock, sleep: Sleep
) -> None:
    deadline = clock() + ELECTION_BOUND_S
    while True:
        try:
            return await medium.require_permission()
        except Untrusted:
            raise
        except NotServing:
            if not must_answer:
                return None
            if clock() > deadline:
                raise
        except Unavailable:
            if must_answer:
                raise
            return None
        await sleep(ELECTION_PAUSE_S * (0.5 + rng.random()))


def _at_start(url: ServerUrl, error: StoreError) -> Exception:
    if isinstance(error, Untrusted):
        return StoreUntrusted(f"{url}: {error.detail}", fix=error.fix)
    if isinstance(error, LoginRefused):
        return StoreLoginRefused(
            f"{url}: {error}", fix="give a valid token: ?token_file=FILE or KVNET_STORE_TOKEN_FILE"
        )
    if isinstance(error, Refused):
        return StoreForbidden(
            f"{url}: {error}", fix=f'the token needs a policy with: key_prefix "{url.root}/" {{ policy = "write" }}'
        )
    if isinstance(error, Unavailable):
        return StoreUnavailable(f"{url}: {error}", fix="is Consul running, and can this machine reach it?")
    return StoreBroken(f"{url}: {error}", fix="does the URL name Consul's HTTP API, and not something else?")


class ConsulMedium:
    """One client of one Consul cluster; see `backends.medium.Medium` for the contract."""

    def __init__(self, http: ConsulHttp, root: str, *, rng: random.Random, clock: Clock, sleep: Sleep) -> None:
        self._http = http
        self._root = f"{root}/"
        self._rng = rng
        self._clock = clock
        self._sleep = sleep
        self._slots = Slots(rng)
        self._records: dict[tuple[str, Revision], Record] = {}
        self._logged: Revision = 0

    async def revision(self) -> Revision:
        # Names only, and the slots' cut off: the newest index under the prefix comes in a header.
        reply = await self._http.read(f"{self._path(LOG)}?keys&separator=/&consistent")
        if reply.status == 404:  # Consul tells some other index then
            await self.require_permission()
            return 0
        return _index(reply)

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        found: dict[str, Entry] = {}
        asked = list(dict.fromkeys(keys))
        for _ in range(READ_ROUNDS):
            if not asked:
                break
            operations: list[Operation] = [{"Verb": "get", "Key": self._root + key} for key in asked[:MAX_OPERATIONS]]
            reply = await self._http.read("/v1/txn?consistent", consul_json.transaction(operations))
            if reply.status == 409:
                missing = {at for at, what in consul_json.failures(reply.body) if MISSING in what}
                asked = [key for number, key in enumerate(asked) if number not in missing]
                continue
            entries = consul_json.entries(reply.body, self._root)
            if len(entries) < len(operations):
                raise Forbidden("Consul does not allow to read all of what was asked for")
            found |= {entry.key: entry for entry in entries}
            asked = asked[MAX_OPERATIONS:]
        if asked:
            raise Unavailable("the keys vanish faster than they can be read")
        return [found.get(key) for key in keys]

    async def scan(self, prefix: str) -> Snapshot:
        """One transaction reads the prefix and the log: one state, and its revision."""
        trees = [prefix] if LOG.startswith(prefix) else [prefix, LOG]
        operations: list[Operation] = [{"Verb": "get-tree", "Key": self._root + tree} for tree in trees]
        reply = await self._http.read("/v1/txn?consistent", consul_json.transaction(operations))
        if len(reply.body) > LARGE_BYTES:
            entries = await asyncio.to_thread(consul_json.entries, reply.body, self._root)
        else:
            entries = consul_json.entries(reply.body, self._root)
        log = parse_log(entry for entry in entries if entry.key.startswith(LOG))
        is_private = prefix.startswith(PRIVATE)
        found = {
            entry.key: entry
            for entry in entries
            if entry.key.startswith(prefix) and (is_private or not entry.key.startswith(PRIVATE))
        }
        if not found:
            await self.require_permission()  # who may not read is told that there is nothing
        return Snapshot(tuple(found[key] for key in sorted(found)), log.revision)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write], *, is_told: bool = True) -> Revision:
        operations = [*map(self._checked, checks), *map(self._written, writes)]
        if not is_told:
            reply = await self._http.write("/v1/txn", consul_json.transaction(operations))
            self._require_done(reply, checks)
            return consul_json.newest(reply.body)
        for _ in range(SLOT_ATTEMPTS):
            revision = await self._commit_logged(operations, checks, writes)
            if revision:
                return revision
        raise Unavailable("the slots of the change log vanish under our hands; is somebody else writing there?")

    async def _commit_logged(
        self, operations: Sequence[Operation], checks: Sequence[Check], writes: Sequence[Write]
    ) -> Revision | None:
        """None: the slot was swept, nothing was written. After an unknown outcome a slot is never used again."""
        now = self._clock()
        slot = self._slots.take(now)
        shed = self._slots.shed(now, MAX_OPERATIONS - len(operations) - 1)
        before = max(one.version for one in (slot, *shed))
        value = record_value(before, writes)
        record = self._set(slot.name, value) | {"Verb": "cas", "Index": slot.version}
        body = consul_json.transaction([*operations, record, *(self._deleted(one.name, one.version) for one in shed)])
        try:
            reply = await self._http.write("/v1/txn", body)
            if reply.status == 409 and any(at >= len(operations) for at, _ in consul_json.failures(reply.body)):
                self._require_no_conflict(reply, checks)
                self._slots.forget()
                return None
            self._require_done(reply, checks)
        except (Conflict, Unavailable, Refused, Broken, TooLarge):
            self._slots.not_written((slot, *shed))
            raise
        revision = consul_json.newest(reply.body, self._root + slot.name)
        self._slots.written(slot, revision, len(value), self._clock())
        self._records[slot.name, revision] = own_record(slot.name, revision, before, writes, len(value))
        return revision

    def follow(self, after: Revision | None, is_wanted: Callable[[str], bool]) -> AsyncIterator[Step]:
        return follow(self, after, is_wanted, rng=self._rng, clock=self._clock, sleep=self._sleep)

    async def close(self) -> None:
        await self._http.close()

    async def require_permission(self) -> None:
        """
        Raises:
            Refused: we may not read or may not write under the root.
        """
        key = self._root + PRIVATE + "probe"
        impossible: list[Operation] = [
            {"Verb": "check-index", "Key": key, "Index": NEVER},
            {"Verb": "set", "Key": key, "Value": ""},
        ]
        # Asked as a read is, of any endpoint: it never writes.
        reply = await self._http.read("/v1/txn", consul_json.transaction(impossible))
        denied = {at for at, what in consul_json.failures(reply.body) if DENIED in what}
        if denied:
            what = " or ".join(word for number, word in enumerate(("read", "write")) if number in denied)
            raise Forbidden(f"the token may not {what} under {self._root}")

    async def read_log(self, newer_than: int = 0) -> tuple[Log, int]:
        """The log, once Consul's index of it is above `newer_than` or a while has passed; and that index."""
        path = f"{self._path(LOG)}?recurse&consistent"
        if newer_than:
            path += f"&index={newer_than}&wait={BLOCKING_WAIT_S}s"
            reply = await self._http.read_once(path, SILENCE_S)
        else:
            reply = await self._http.read(path)
        entries = [] if reply.status == 404 else consul_json.entries(reply.body, self._root)
        log = parse_log(entries, self._records)
        newer = {} if log.revision < self._logged else self._records  # our own commits since
        self._records = {at: one for at, one in newer.items() if one.revision > log.revision}
        self._records |= {(one.name, one.revision): one for one in log.records}
        self._logged = log.revision
        return log, _index(reply)

    async def sweep(self, slots: Sequence[Record], value: bytes, swept: Revision) -> None:
        """Delete slots that nobody set since, if nobody else swept; whatever fails, nothing is deleted."""
        raised = self._set(SWEPT, value) | {"Verb": "cas", "Index": swept}
        gone = [self._deleted(slot.name, slot.revision) for slot in slots]
        await self._http.write("/v1/txn", consul_json.transaction([raised, *gone]))

    def _path(self, key: str) -> str:
        return f"/v1/kv/{quote(self._root + key, safe='/')}"

    def _checked(self, check: Check) -> Operation:
        key = self._root + check.key
        if isinstance(check, Unchanged):
            return {"Verb": "check-index", "Key": key, "Index": check.version}
        return {"Verb": "check-not-exists" if isinstance(check, Absent) else "get", "Key": key}

    def _written(self, write: Write) -> Operation:
        if isinstance(write, Put):
            return self._set(write.key, write.value)
        return {"Verb": "delete", "Key": self._root + write.key}

    def _set(self, key: str, value: bytes) -> Operation:
        encoded = base64.b64encode(value).decode()
        return {"Verb": "set", "Key": self._root + key, "Value": encoded, "Flags": self._rng.getrandbits(64)}

    def _deleted(self, slot: str, version: Revision) -> Operation:
        return {"Verb": "delete-cas", "Key": self._root + slot, "Index": version}

    def _require_done(self, reply: Reply, checks: Sequence[Check]) -> None:
        if reply.status == 409:
            self._require_no_conflict(reply, checks)
            raise Broken(f"Consul refuses the transaction: {reply.text}")
        if reply.status == 413:
            raise TooLarge(f"Consul: {reply.text}")
        if reply.status != 200:
            raise Broken(f"Consul answers a transaction with status {reply.status}: {reply.text}")

    def _require_no_conflict(self, reply: Reply, checks: Sequence[Check]) -> None:
        """Consul tells of every operation that failed; operations come in the order checks, writes, slot."""
        failures = consul_json.failures(reply.body)
        if any(DENIED in what for _, what in failures):
            raise Forbidden(f"the token may not do that under {self._root}: {DENIED}")
        if failed := {checks[at].key for at, _ in failures if at < len(checks)}:
            raise Conflict(sorted(failed))


def _index(reply: Reply) -> int:
    """Of a blocking query; never 0, which would not block."""
    try:
        return max(1, int(reply.headers["X-Consul-Index"]))
    except (KeyError, ValueError) as error:
        raise Broken("the answer has no X-Consul-Index: something stands between us and Consul") from error
