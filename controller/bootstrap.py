"""The first moment of a cluster: its identity and its default pools, written once, by whichever controller comes first.

A store that holds a newer schema, or another kind of data, is refused; nothing there is ever overwritten.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import IPv6Network, ip_network

from backends.store import Absent, Conflict, Put, Unknown
from controller.journal import Changed
from controller.requests import Caller
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import StoreBroken
from kvnet.model import Cluster, Pool

# Clear of Docker's own 172.17-31 and 192.168, and of the low 10.0.x that Swarm takes.
DEFAULT_POOL = Pool("default", ip_network("10.192.0.0/10"), 24)
UNIQUE_LOCAL = 0xFD << 120  # RFC 4193: fd, 40 random bits, then a /48 of one's own


async def found_cluster(writer: Writer, replica: str, rng: random.Random) -> Cluster:
    """The cluster that the store belongs to, founded now if it is new.

    Raises:
        StoreBroken: written by a newer kvnet, or not ours.
        TooMuchContention, StoreError
    """
    turns = writer.turns("the cluster could not be founded")
    while True:
        await turns.next()
        entry = await writer.store.get(keys.CLUSTER)
        if entry is not None:
            return _known(codec.decode(Cluster, entry.value))
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


def _known(cluster: Cluster) -> Cluster:
    if cluster.schema > codec.SCHEMA:
        raise StoreBroken(
            f"the store was written with schema {cluster.schema}, this kvnet knows up to {codec.SCHEMA}",
            fix="upgrade this kvnet",
        )
    return cluster


async def _write(writer: Writer, cluster: Cluster, replica: str) -> None:
    puts = [Put(keys.CLUSTER, codec.encode(cluster))]
    puts += [Put(keys.pool(pool.name), codec.encode(pool)) for pool in default_pools(cluster.id)]
    caller = Caller(actor=replica, request_id="", source="first start")
    change = Changed("cluster.founded", keys.CLUSTER, None, puts[0].value)
    await writer.commit([Absent(put.key) for put in puts[:1]], puts, caller, change)
