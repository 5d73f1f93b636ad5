"""I4 and I6 for peers: who is listed is there, and lists the other side too.

Both sides are written in one commit, so one side alone is damage. The repair takes it away and never adds any: nothing
passes between two networks unless somebody asked for it. A network that is being deleted is judged no more: its peers
let go of it one after the other. A repair rests on the version of its own network alone: nobody lists it anew without
writing it, too; so the repairs of several networks do not hinder each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from backends.store import Absent, Check, Put, Unchanged
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant, Repair
from kvnet import codec, keys
from kvnet.model import Network, NetworkState, Versioned

MAX_NAMED = 20
# Each is a check of the repair's one commit; those left over are found again.
MAX_REPAIRED = 40


def peers(dump: Dump) -> Iterator[Finding]:
    for network in dump.networks.values():
        if network.value.peers and network.value.state is NetworkState.ACTIVE:
            wrong = [w for peer in dict.fromkeys(network.value.peers) if (w := _wrong(dump, network.value, peer))]
            if wrong:
                yield _finding(network, wrong)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A peer that should not be listed; `seen`: what that rests on beside the network itself."""

    peer: str
    detail: str
    seen: tuple[Check, ...] = ()
    is_gone: bool = False


def _wrong(dump: Dump, network: Network, peer: str) -> _Wrong | None:
    key = keys.network(peer)
    if peer == network.id:
        return _Wrong(peer, "itself")
    if key in dump.unreadable:
        return None  # what it lists cannot be known; the key itself is a finding
    other = dump.networks.get(peer)
    if other is None:
        return _Wrong(peer, f"{peer}, which does not exist", (Absent(key),), is_gone=True)
    if network.id not in other.value.peers:
        return _Wrong(peer, f"{other.value.name} ({peer}), which does not list it")
    return None


def _finding(network: Versioned[Network], wrong: list[_Wrong]) -> Finding:
    """One for all of a network's: their repairs write the same key."""
    one, key = network.value, keys.network(network.value.id)
    named = "; ".join(w.detail for w in wrong[:MAX_NAMED])
    more = f"; and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
    mended = wrong[:MAX_REPAIRED]
    gone = {w.peer for w in mended}
    after = replace(one, peers=tuple(peer for peer in one.peers if peer not in gone))
    checks = (Unchanged(key, network.version), *(check for w in mended for check in w.seen))
    return Finding(
        Invariant.NOTHING_OUTLIVES_ITS_NETWORK
        if any(w.is_gone for w in wrong)
        else Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        f"network {one.name} ({one.id}) has the peer {named}{more}",
        (key, *(keys.network(w.peer) for w in wrong if w.peer != one.id)),
        f"take it out; to let them talk, 'kvnet network peer {one.name} ...' afterwards",
        Repair(checks, (Put(key, codec.encode(after)),)),
    )
