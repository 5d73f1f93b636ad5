"""The links' half of a plan: which to make, change and delete, and what the others lose by it.

A deleted link takes its entries along, a re-created one starts empty, a port that changes its bridge leaves its
forwarding entries behind, a bridge that was down has lost its neighbours and routes, and one that gets its MAC back
loses its neighbours: the rest of the plan needs to know, because `actual` still lists them, or may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from datapath.objects import Bridge, CreateLink, DeleteLink, HostState, Link, Operation, UpdateLink, Veth, Vxlan

NOTHING: frozenset[str] = frozenset()
_RANK = {Bridge: 0, Vxlan: 1, Veth: 2}  # a master before its ports


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """`changes` come before everything that stands on a link, `removals` after everything else.

    fresh: made by this plan, so empty. gone: deleted by it. withheld: wanted, but not there afterwards.
    moved: ports that change their bridge. revived: bridges that were down, had another MAC, or no IPv6 but need it.
    flushed: of these, bridges that get another MAC, and so lose every neighbour.
    muted: bridges that lose IPv6, and every IPv6 entry with it.
    """

    changes: tuple[Operation, ...] = ()
    removals: tuple[Operation, ...] = ()
    fresh: frozenset[str] = NOTHING
    gone: frozenset[str] = NOTHING
    withheld: frozenset[str] = NOTHING
    moved: frozenset[str] = NOTHING
    revived: frozenset[str] = NOTHING
    flushed: frozenset[str] = NOTHING
    muted: frozenset[str] = NOTHING


def plan_links(desired: HostState, actual: HostState, blocked: frozenset[str]) -> LinkPlan:
    wanted = {name: link for name, link in desired.links.items() if name not in blocked}
    held = {name: link for name, link in actual.links.items() if name not in blocked}
    doomed = {name for name, link in held.items() if name not in wanted or _is_another(name, desired, actual)}
    creatable = {n for n, link in wanted.items() if not isinstance(link, Veth) or n in desired.containers}
    fresh = frozenset(name for name in creatable if name not in held or name in doomed)
    kept = {name: _as_left(held[name], fresh) for name in wanted.keys() & held.keys() - doomed}
    early = _early_deletions({name: held[name] for name in doomed}, wanted, fresh)
    updates = {name: link for name, link in kept.items() if link != wanted[name]}
    ordered = sorted(fresh | updates.keys(), key=lambda name: (_RANK[type(wanted[name])], name))
    makes = [
        CreateLink(wanted[name], desired.containers.get(name))
        if name in fresh
        else UpdateLink(wanted[name], updates[name])
        for name in ordered
    ]
    return LinkPlan(
        changes=(*_deletions({name: held[name] for name in early}), *makes),
        removals=_deletions({name: held[name] for name in doomed - early}),
        fresh=fresh,
        gone=frozenset(doomed - fresh),
        withheld=frozenset(desired.links.keys() & blocked | (wanted.keys() - fresh - kept.keys())),
        moved=frozenset(name for name, link in updates.items() if _master(link) != _master(wanted[name])),
        revived=frozenset(name for name, link in updates.items() if _comes_alive(link, wanted[name])),
        flushed=frozenset(name for name, link in updates.items() if _gets_another_mac(link, wanted[name])),
        muted=frozenset(name for name, link in updates.items() if _has_ipv6(link) and not _has_ipv6(wanted[name])),
    )


def segment(tunnel: Vxlan) -> tuple[int, bytes, int]:
    """What of a tunnel device cannot be changed while it exists."""
    return tunnel.vni, tunnel.local, tunnel.port


def _is_another(name: str, desired: HostState, actual: HostState) -> bool:
    """Whether the link has to be made anew: what differs cannot be changed while it exists."""
    want, have = desired.links[name], actual.links[name]
    if isinstance(want, Vxlan) and isinstance(have, Vxlan):
        return segment(want) != segment(have)
    side, other = desired.containers.get(name), actual.containers.get(name)
    if side is not None and other is not None and (side.netns, side.interface) != (other.netns, other.interface):
        return True
    return type(want) is not type(have)


def _as_left(link: Link, fresh: frozenset[str]) -> Link:
    """The link as the creations leave it: its bridge is not what it was if that was made anew."""
    return replace(link, bridge="") if not isinstance(link, Bridge) and link.bridge in fresh else link


def _early_deletions(doomed: Mapping[str, Link], wanted: Mapping[str, Link], fresh: frozenset[str]) -> set[str]:
    """What is in the way of a creation: the same name, the same VNI, or an interface name in the same namespace.

    The last cannot be seen from here, so all stale interfaces go first when a new one comes. Everything else goes
    last: deleting a bridge takes 18 ms, and nobody should wait for that.
    """
    created = [wanted[name] for name in fresh]
    vnis = {link.vni for link in created if isinstance(link, Vxlan)}
    has_new_interface = any(isinstance(link, Veth) for link in created)
    return {
        name
        for name, link in doomed.items()
        if name in fresh
        or (isinstance(link, Vxlan) and link.vni in vnis)
        or (isinstance(link, Veth) and has_new_interface)
    }


def _deletions(links: Mapping[str, Link]) -> tuple[Operation, ...]:
    ordered = sorted(links.values(), key=lambda link: (-_RANK[type(link)], link.name))
    return tuple(DeleteLink(link) for link in ordered)


def _comes_alive(have: Link, want: Link) -> bool:
    if not isinstance(have, Bridge):
        return False
    return not have.up or _gets_another_mac(have, want) or (_has_ipv6(want) and not have.ipv6)


def _gets_another_mac(have: Link, want: Link) -> bool:
    return isinstance(have, Bridge) and isinstance(want, Bridge) and have.mac != want.mac


def _has_ipv6(link: Link) -> bool:
    return isinstance(link, Bridge) and link.ipv6


def _master(link: Link) -> str:
    return "" if isinstance(link, Bridge) else link.bridge
