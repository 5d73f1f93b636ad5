"""The format of a backup: a whole cluster as JSON lines, as of one revision, in a form that tells damage by itself.

A header, one line per key, and a trailer with the SHA-256 of every byte before it, so that nothing cut off or altered
passes. Left out is what only means something in the store where it was written: sessions and what hangs on them, what
hosts applied (revisions), an acceptance, suspicions, held subnets; and credentials, unless they were asked for. The
journal and its seals are kept for the record. Pure: no store, no files.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.store import MAX_VALUE_BYTES, Entry, Snapshot, require_key
from controller.bootstrap import not_ours
from controller.ipam.check import check
from controller.ipam.findings import Finding
from kvnet import __version__, codec, keys, sentinel
from kvnet.claims import SubnetClaim
from kvnet.errors import BackupUnusable, StoreBroken, StoreForeign, StoreTooNew
from kvnet.marks import Cluster

FORMAT = 1
LEFT_OUT = (
    keys.ALIVE,
    keys.REPLICAS,
    keys.LEADERS,
    keys.OBSERVED,
    keys.RECLAIMS,
    keys.QUESTIONS,
    keys.ANSWERS,
    keys.ACCEPTED,
    keys.RESTORING,
    keys.JOURNAL_FLOOR,
)
COUNTED = (keys.NETWORKS, keys.ENDPOINTS, keys.ADDRESSES, keys.POOLS, keys.HOSTS)
_MARK = "kvnet_backup"
_OTHER_FILE = "name a file that 'kvnet backup' wrote"
_ANOTHER = "use another backup; 'kvnet backup --verify FILE' says which are whole"


@dataclass(frozen=True, slots=True)
class Header:
    """`store`: the kind that it was taken from. `revision`: as of which. `at`: seconds since the epoch.

    `secrets`: whether the hashes of tokens, and what the replicas share, are in it.
    """

    cluster: str
    schema: int
    store: str
    revision: int
    at: float
    kvnet: str
    entries: int
    counts: Mapping[str, int]
    secrets: bool = False


@dataclass(frozen=True, slots=True)
class Backup:
    """`digest`: of the whole content. `values`: by key."""

    header: Header
    values: Mapping[str, bytes]
    digest: str

    def findings(self, now: float) -> list[Finding]:
        """What is wrong with the cluster in it: values that cannot be read, violated invariants."""
        entries = [Entry(key, self.values[key], number) for number, key in enumerate(sorted(self.values), start=1)]
        return check(entries, now)


def pack(snapshot: Snapshot, store: str, now: float, *, secrets: bool = False) -> Iterator[bytes]:
    """The lines of a backup of everything in the store; of credentials only with `secrets`.

    Raises:
        StoreBroken: there is no whole cluster in it.
        StoreForeign: there is something in it that is not kvnet's.
        StoreTooNew
    """
    left_out = LEFT_OUT if secrets else (*LEFT_OUT, *keys.SECRET)
    kept = [entry for entry in snapshot.entries if not (entry.key.startswith(left_out) or _is_hold(entry))]
    cluster = _cluster_of(snapshot)
    unknown = [key for key in not_ours(kept) if not key.startswith((*keys.LASTING, *keys.PASSING))]
    if unknown:
        raise StoreForeign(
            f"the root of the store holds keys that are not kvnet's: {', '.join(unknown[:3])}",
            fix="a backup would not be whole; remove them, or upgrade kvnet if a newer one wrote them",
        )
    counts = Counter(entry.key[: entry.key.find("/") + 1] for entry in kept)
    header = {
        _MARK: FORMAT,
        "cluster": cluster.id,
        "schema": sentinel.level_of({entry.key: entry for entry in kept}),
        "store": store,
        "revision": snapshot.revision,
        "at": now,
        "kvnet": __version__,
        "entries": len(kept),
        "counts": {prefix.rstrip("/"): counts[prefix] for prefix in COUNTED},
        "secrets": secrets,
    }
    digest = hashlib.sha256()
    for line in (_line(header), *(_line(_entry_to_json(entry)) for entry in kept)):
        digest.update(line)
        yield line
    yield _line({"sha256": digest.hexdigest()})


def unpack(lines: Iterable[bytes]) -> Backup:
    """
    Raises:
        BackupUnusable: says what is wrong with it; nothing of it is to be used.
    """
    header: Header | None = None
    values: dict[str, bytes] = {}
    digest, told = hashlib.sha256(), ""
    for number, line in enumerate(lines, start=1):
        if told:
            raise _damaged(f"there is something after its end, in line {number}")
        plain = _plain(line, number)
        if header is None:
            header = _header(plain)
        elif "sha256" in plain:
            told = str(plain["sha256"])
            continue
        else:
            key, value = _entry(plain, number)
            if key in values:
                raise _damaged(f"line {number} holds {key!r} a second time")
            values[key] = value
        digest.update(line)
    if header is None:
        raise BackupUnusable("the backup is empty", fix=_OTHER_FILE)
    if not told:
        raise _damaged(f"it is cut off after {len(values)} of {header.entries} entries")
    if told != digest.hexdigest() or len(values) != header.entries:
        raise _damaged("its content does not match its SHA-256")
    _require_whole(header, values)
    return Backup(header, values, told)


def _is_hold(entry: Entry) -> bool:
    """Over within a minute: no network would come for it where the backup is brought back."""
    if not entry.key.startswith(keys.SUBNETS):
        return False
    try:
        return codec.decode(SubnetClaim, entry.value).hold is not None
    except StoreBroken:
        return False


def _cluster_of(snapshot: Snapshot) -> Cluster:
    found = {entry.key: entry for entry in snapshot.entries if entry.key.startswith(keys.META)}
    if keys.RESTORING in found or keys.CLUSTER not in found:
        why = "a restore into it was cut short" if keys.RESTORING in found else f"{keys.CLUSTER} is not there"
        raise StoreBroken(f"there is no whole cluster in the store: {why}", fix="name another with --store")
    return sentinel.cluster(found[keys.CLUSTER].value)


def _require_whole(header: Header, values: Mapping[str, bytes]) -> None:
    try:
        cluster = sentinel.cluster(values[keys.CLUSTER])
    except StoreTooNew as error:
        raise BackupUnusable(error.detail.replace("the store", "the backup"), fix="upgrade this kvnet") from error
    except (KeyError, StoreBroken) as error:
        raise _damaged(f"there is no {keys.CLUSTER} in it that can be read") from error
    if cluster.id != header.cluster:
        raise _damaged(f"its header says cluster {header.cluster}, and its content {cluster.id}")
    left_out = LEFT_OUT if header.secrets else (*LEFT_OUT, *keys.SECRET)
    left = [key for key in values if key.startswith(left_out) or not key.startswith((*keys.LASTING, *keys.PASSING))]
    if left:
        raise _damaged(f"it holds {left[0]!r}, which does not belong into a backup")


def _entry_to_json(entry: Entry) -> dict[str, str]:
    try:
        return {"k": entry.key, "v": entry.value.decode()}
    except UnicodeDecodeError:  # damaged in the store; it is not for us to lose what is left of it
        return {"k": entry.key, "b": base64.b64encode(entry.value).decode()}


def _entry(plain: Mapping[str, Any], number: int) -> tuple[str, bytes]:
    try:
        key = plain["k"]
        require_key(key)
        value = plain["v"].encode() if "v" in plain else base64.b64decode(plain["b"], validate=True)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(f"line {number} is not an entry") from error
    if len(value) > MAX_VALUE_BYTES:
        raise _damaged(f"line {number} holds a value of {len(value)} bytes")
    return key, value


def _header(plain: Mapping[str, Any]) -> Header:
    version = plain.get(_MARK)
    if type(version) is not int:
        raise BackupUnusable("this is not a backup of kvnet", fix=_OTHER_FILE)
    if version > FORMAT or (type(plain.get("schema")) is int and plain["schema"] > codec.SCHEMA):
        raise BackupUnusable(
            f"the backup was written by a newer kvnet ({str(plain.get('kvnet'))[:40]})", fix="upgrade this kvnet"
        )
    try:
        return codec.from_json(Header, {name: value for name, value in plain.items() if name != _MARK})
    except StoreBroken as error:
        raise _damaged("its header cannot be read") from error


def _plain(line: bytes, number: int) -> dict[str, Any]:
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict):
        if number == 1:
            raise BackupUnusable("this is not a backup of kvnet", fix=_OTHER_FILE)
        raise _damaged(f"line {number} is cut off or damaged")
    return plain


def _line(plain: Mapping[str, Any]) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def _damaged(why: str) -> BackupUnusable:
    return BackupUnusable(f"the backup is damaged: {why}", fix=_ANOTHER)
