"""The first moment of a cluster: its identity and its default pools, written once, by whichever controller comes first.

Nothing is written before it is sure that the store is empty or this cluster's: not beside somebody else's data, not
where the sentinel of an older cluster is gone, not where a restore was cut short, not under a newer schema. Nothing
there is ever overwritten.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network, ip_network

from backends.store import Absent, Conflict, Entry, Put, Unknown
from controller.ipam import dump
from controller.journal import Changed
from controller.requests import Caller
from controller.writer import Writer
from kvnet import codec, keys, sentinel
from kvnet.errors import AnotherCluster, KvnetError, StoreBroken, StoreForeign
from kvnet.marks import Cluster
from kvnet.model import Pool

# Clear of Docker's own 172.17-31 and 192.168, and of the low 10.0.x that Swarm takes.
DEFAULT_POOL = Pool("default", ip_network("10.192.0.0/10"), 24)
UNIQUE_LOCAL = 0xFD << 120  # RFC 4193: fd, 40 random bits, then a /48 of one's own
MAX_NAMED = 3
MAX_KEY_SHOWN = 60


async def found_cluster(writer: Writer, replica: str, rng: random.Random, expected: str = "") -> Cluster:
    """The cluster that the store belongs to, founded now if it is new. `expected`: the id it must have, "" for any.

    Raises:
        AnotherCluster: it has another id than the expected one, or none.
        StoreForeign: there are keys under the root that are not kvnet's.
        StoreBroken: the sentinel is damaged, or gone while the cluster's data are there, or a restore was cut short.
        StoreTooNew: written by a newer kvnet.
        TooMuchContention, StoreError
    """
    turns = writer.turns("the cluster could not be founded")
    while True:
        await turns.next()
        entry = await writer.store.get(keys.CLUSTER)
        entries = [] if entry else (await writer.store.list("")).entries
        # Another controller that starts at the same moment may have founded it between the two.
        entry = entry or next((one for one in entries if one.key == keys.CLUSTER), None)
        if entry is not None:
            level = await writer.store.get(keys.LEVEL)
            sentinel.require_level(level.value if level is not None else None)
            return _meant(sentinel.cluster(entry.value), expected)
        refusal = why_not_founded(entries, expected)
        if refusal is not None:
            raise refusal
        cluster = Cluster(f"{rng.getrandbits(64):016x}", writer.now(), codec.SCHEMA)
        try:
            await _write(writer, cluster, replica)
        except (Conflict, Unknown) as error:
            turns.failed(error)
            continue
        return cluster


def default_pools(cluster_id: str) -> Sequence[Pool]:
    """`default6` is derived from the cluster's random id, so that two clusters can be joined one day."""
    site = UNIQUE_LOCAL | int(cluster_id[:10], 16) << 80
    return DEFAULT_POOL, Pool("default6", IPv6Network((site, 48)), 64)


def why_not_founded(entries: Sequence[Entry], expected: str = "") -> KvnetError | None:
    """Why a store without a sentinel that holds these entries is not a place for a new cluster; None if it is."""
    foreign = not_ours(entries)
    if foreign:
        what = "there is a key that is" if len(foreign) == 1 else f"there are {len(foreign)} keys that are"
        return StoreForeign(
            f"under the root of the store {what} not kvnet's: {_named(foreign)}",
            fix="give kvnet a root of its own, at the end of the store's URL: etcd://HOST:2379/ANOTHER",
        )
    if any(entry.key == keys.RESTORING for entry in entries):
        return StoreBroken(
            "a restore into this store was cut short: it is not a whole cluster",
            fix="run 'kvnet restore' again with the same file; it goes on where it stopped",
        )
    lasting = [entry.key for entry in entries if entry.key.startswith(keys.LASTING)]
    if lasting:
        return StoreBroken(
            f"{keys.CLUSTER} is gone, but {len(lasting)} keys of a cluster are there: {_named(lasting)}",
            fix="find out what removed it; then 'kvnet restore FILE --replace' brings a backup back",
        )
    if expected:
        return AnotherCluster(
            f"cluster {expected} was meant, and the store is empty",
            fix="name the right store, or bring the cluster back with 'kvnet restore FILE'; "
            "for a new cluster leave --cluster out",
        )
    return None


def not_ours(entries: Iterable[Entry]) -> list[str]:
    """Keys of no prefix of kvnet's, or whose value is not what kvnet keeps there."""
    entries = list(entries)
    unknown = [entry.key for entry in entries if not entry.key.startswith((*keys.LASTING, *keys.PASSING))]
    return sorted({*unknown, *dump.read(entries).unreadable})


def _meant(cluster: Cluster, expected: str) -> Cluster:
    if expected and cluster.id != expected:
        raise AnotherCluster(
            f"the store is that of cluster {cluster.id}, and {expected} was meant",
            fix="name the right store with --store, or the right cluster with --cluster",
        )
    return cluster


def _named(names: Sequence[str]) -> str:
    shown = [ascii(name[:MAX_KEY_SHOWN])[1:-1] for name in sorted(names)[:MAX_NAMED]]
    return ", ".join(shown) + (" and others" if len(names) > MAX_NAMED else "")


async def _write(writer: Writer, cluster: Cluster, replica: str) -> None:
    puts = [Put(keys.CLUSTER, codec.encode(cluster))]
    puts += [Put(keys.pool(pool.name), codec.encode(pool)) for pool in default_pools(cluster.id)]
    caller = Caller(actor=replica, request_id="", source="first start")
    change = Changed("cluster.founded", keys.CLUSTER, None, puts[0].value)
    await writer.commit([Absent(put.key) for put in puts[:1]], puts, caller, change)
