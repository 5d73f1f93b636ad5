"""What the use cases answer with, beyond the nouns of the model: plain data, computed from memory.

Nothing here reads a store or a clock; a view is a statement about the moment it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvnet.errors import StoreTooNew, StoreWentBack
from kvnet.model import Address, Cidr, Condition, Endpoint, Host, Inventory, Network, Observed, Pool, Versioned


@dataclass(frozen=True, slots=True)
class HostStatus:
    """`last_seen`: now for a living host, else when its proof of life vanished; None if it was never seen.

    `down_since`: when it was first seen absent; None while it lives. `incarnation`: the run of the worker that lives or
    was seen last.
    `lag`: per network id that the host carries or has something of, how many store revisions of it the host has not
    applied (0: none).
    """

    host: Host
    version: int
    alive: bool
    last_seen: float | None
    down_since: float | None
    incarnation: str
    inventory: Inventory | None
    observed: Observed | None
    endpoints: int
    networks: tuple[str, ...] = ()
    lag: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StatusCondition:
    """`kind`: ready, converged, or problem. `status`: true, false or unknown. `host`: who reports it, if one does.

    `since`: when it became so; None if nobody knows.
    """

    kind: str
    status: str
    reason: str
    detail: str = ""
    host: str | None = None
    since: float | None = None


# `ready` and `converged`, in this order, and then the problems that hosts report.
Status = tuple[StatusCondition, ...]


@dataclass(frozen=True, slots=True)
class SubnetUse:
    """`used`: how many addresses endpoints have, of the `size` that they could have."""

    cidr: Cidr
    used: int
    size: int


@dataclass(frozen=True, slots=True)
class NetworkUse:
    endpoints: int
    hosts: tuple[str, ...]
    used: int
    size: int
    subnets: tuple[SubnetUse, ...]
    peers: tuple[tuple[str, str], ...] = ()  # (id, name)


@dataclass(frozen=True, slots=True)
class Convergence:
    """`waiting_for`: the living hosts that have not applied it yet; `away`: those that are down, and not waited for."""

    converged: bool
    waiting_for: tuple[str, ...]
    away: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostConvergence:
    """`wanted`, `applied`: revisions of the network. `lag_seconds`: since the oldest change that the host has not
    applied was committed; 0 if there is none, None if it is not known any more when that was."""

    host: str
    alive: bool
    wanted: int
    applied: int
    lag_revisions: int
    lag_seconds: float | None
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class NetworkConvergence:
    """`converged`: no living host is behind `version`, the newest change of the network."""

    network: str
    version: int
    converged: bool
    hosts: tuple[HostConvergence, ...]


@dataclass(frozen=True, slots=True)
class NetworkSeen:
    """What is told of a network when its status changes."""

    network: Network
    use: NetworkUse
    applied: Convergence
    status: Status


@dataclass(frozen=True, slots=True)
class HostSeen:
    """What is told of a host when its status changes."""

    name: str
    alive: bool
    state: str
    down_since: float | None
    incarnation: str
    endpoints: int
    networks: tuple[str, ...]
    lag_revisions: int
    status: Status


@dataclass(frozen=True, slots=True)
class PoolStatus:
    pool: Pool
    version: int
    subnets_used: int
    subnets_total: int
    largest_free: Cidr | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """`fixed`: part of the network's specification; it lives and dies with it."""

    network: str
    name: str
    address: Address
    since: float
    version: int
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class BlockUse:
    """A host's block of a routed network. `size`: the addresses that endpoints could have, `used`: those they have."""

    cidr: Cidr
    host: str
    state: str
    since: float
    used: int
    size: int


@dataclass(frozen=True, slots=True)
class HeldPort:
    """A host port and the endpoint that has it. `port`: the workload's; None if the endpoint is not known here."""

    host: str
    protocol: str
    host_port: int
    host_address: Address | None
    network: str
    network_name: str
    endpoint: str
    endpoint_name: str
    port: int | None


@dataclass(frozen=True, slots=True)
class AddressHolder:
    """Who has an address. `kind`: free, endpoint, reservation, tombstone, gateway, network, broadcast, host.

    `block`: of a routed network, the one that the address is in, if a host has it.
    """

    address: Address
    kind: str
    network: Network
    holder: str = ""
    since: float | None = None
    until: float | None = None
    endpoint: Versioned[Endpoint] | None = None
    block: BlockUse | None = None


@dataclass(frozen=True, slots=True)
class SubnetHolder:
    """Something that overlaps an asked-for block. `kind`: network, hold, pool, host, block (a host's, if routed)."""

    cidr: Cidr
    kind: str
    holder: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A subnet that is kept for a network of a host; `forced`: why an overlap with a host was accepted."""

    id: str
    cidr: Cidr
    host: str
    since: float
    until: float
    forced: str
    version: int


@dataclass(frozen=True, slots=True)
class Utilisation:
    pools: tuple[PoolStatus, ...]
    networks: tuple[tuple[Versioned[Network], NetworkUse], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `revision` numbers the commit; several events may share it.

    `resumable`: the last event of its revision, so its revision is a position to resume from (an SSE id). Events of
    hosts coming and going are not in the journal and never resumable.
    `network`: the id of the network it concerns, "" if none. `claimed`: who the actor said that it asked for.
    """

    revision: int
    kind: str
    at: float
    key: str
    network: str
    actor: str
    request_id: str
    source: str
    before: Any
    after: Any
    resumable: bool
    claimed: str = ""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing happened; everything up to `revision` was told."""

    revision: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of an invariant (I1 to I6). `kind`: double, leak, orphan or damage.

    `fix` tells what a repair would do, or what a person can do.
    """

    invariant: str
    detail: str
    keys: tuple[str, ...]
    fix: str = ""
    is_repairable: bool = False
    kind: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`repaired`: findings that this run put right; they are not among `findings`.

    `changed`: not repaired, because what they rest on changed meanwhile; among `findings` if they are still true.
    """

    ok: bool
    findings: tuple[Finding, ...]
    revision: int
    repaired: tuple[Finding, ...] = ()
    changed: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """`kind`: went-back, wiped, another-cluster or too-new.

    `before`: the revision that was seen, `now` what it fell to.
    """

    kind: str
    detail: str
    fix: str
    before: int = 0
    now: int = 0

    def error(self) -> StoreWentBack | StoreTooNew:
        if self.kind == "too-new":
            return StoreTooNew(f"nothing is changed, because {self.detail}", fix=self.fix)
        facts = {"store_state": self.kind, "revision_before": self.before, "revision_now": self.now}
        return StoreWentBack(f"nothing is changed, because {self.detail}", fix=self.fix, context=facts)


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """`stale_since`: since when a mirror is cut off from the store; None when all are in step.

    `trouble`: why nothing is written; None when all is well.
    """

    cluster: str
    store: str
    revision: int
    leader: str | None
    is_leader: bool
    replica: str
    stale_since: float | None
    trouble: Trouble | None
    networks: int
    endpoints: int
    hosts: int
    hosts_alive: int
    pools: int
