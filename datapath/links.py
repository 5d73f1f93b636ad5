"""The links' half of a plan: which to make, change and delete, and what the others lose by it.

A deleted link takes its entries along, a re-created one starts empty, a port that changes its bridge leaves its
forwarding entries behind, a device that was down has lost its neighbours and routes, and one that gets its MAC back
loses its neighbours: the rest of the plan needs to know, because `actual` still lists them, or may.
An uplink is the host's own: it becomes a port of a bridge of ours and leaves it again, nothing else is done to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from datapath.objects import (
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Enslave,
    HostState,
    Link,
    Macvlan,
    Operation,
    Release,
    Shim,
    UpdateLink,
    Veth,
    Vxlan,
)

NOTHING: frozenset[str] = frozenset()
_RANK = {Bridge: 0, Vxlan: 1, Shim: 1, Veth: 2, Macvlan: 2}  # a master before its ports


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """`changes` come before everything that stands on a link, `removals` after everything else.

    fresh: made by this plan, so empty. gone: deleted by it. withheld: wanted, but not there afterwards.
    moved: ports that change their bridge. revived: devices that were down, had another MAC, or no IPv6 but need it.
    flushed: of these, devices that get another MAC, and so lose every neighbour.
    muted: devices that lose IPv6, and every IPv6 entry with it.
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
    creatable = {n for n, link in wanted.items() if not _is_in_workload(link) or n in desired.containers}
    fresh = frozenset(name for name in creatable if name not in held or name in doomed)
    withheld = frozenset(desired.links.keys() & blocked | (wanted.keys() - fresh - (held.keys() - doomed)))
    kept = {name: _as_left(held[name], wanted[name], fresh) for name in wanted.keys() & held.keys() - doomed}
    updates = {name: link for name, link in kept.items() if link != wanted[name]}
    releases, enslaves = _plan_uplinks(desired, actual, fresh, withheld, blocked)
    early = _early_deletions({n: held[n] for n in doomed}, wanted, fresh, {o.entry.uplink for o in enslaves})
    ordered = sorted(fresh | updates.keys(), key=lambda name: (_RANK[type(wanted[name])], name))
    makes = [
        CreateLink(wanted[name], desired.containers.get(name)) if name in fresh else _update(name, updates, desired)
        for name in ordered
    ]
    return LinkPlan(
        changes=(*releases, *_deletions({name: held[name] for name in early}, desired, actual), *makes, *enslaves),
        removals=_deletions({name: held[name] for name in doomed - early}, desired, actual),
        fresh=fresh,
        gone=frozenset(doomed - fresh),
        withheld=withheld,
        moved=frozenset(name for name, link in updates.items() if master(link) != master(wanted[name])),
        revived=frozenset(name for name in kept if _comes_alive(name, desired, actual)),
        flushed=frozenset(name for name, link in updates.items() if _gets_another_mac(link, wanted[name])),
        muted=frozenset(n for n in kept if has_ipv6(n, actual) and not has_ipv6(n, desired)),
    )


def segment(tunnel: Vxlan) -> tuple[int, bytes, int]:
    """What of a tunnel device cannot be changed while it exists."""
    return tunnel.vni, tunnel.local, tunnel.port


def master(link: Link) -> str:
    """The bridge that it is a port of; "" for none."""
    return link.bridge if isinstance(link, Vxlan | Veth) else ""


def has_ipv6(name: str, state: HostState) -> bool:
    """Whether the device speaks IPv6, as far as the state tells: of ports and interfaces it does not matter."""
    link = state.links.get(name)
    if isinstance(link, Bridge):
        return link.ipv6
    return isinstance(link, Vxlan | Shim) and state.sysctls.get(f"net/ipv6/conf/{name}/disable_ipv6") == "0"


def _is_in_workload(link: Link) -> bool:
    return isinstance(link, Veth | Macvlan)


def _is_another(name: str, desired: HostState, actual: HostState) -> bool:
    """Whether the link has to be made anew: what differs cannot be changed while it exists."""
    want, have = desired.links[name], actual.links[name]
    if isinstance(want, Vxlan) and isinstance(have, Vxlan):
        return segment(want) != segment(have)
    if isinstance(want, Macvlan | Shim) and isinstance(have, Macvlan | Shim) and want.uplink != have.uplink:
        return True
    side, other = desired.containers.get(name), actual.containers.get(name)
    # Where a runtime took what it was handed over is not seen from here.
    if side is not None and other is not None and not other.is_handed_over:
        return (side.netns, side.interface) != (other.netns, other.interface) or type(want) is not type(have)
    return type(want) is not type(have)


def _as_left(link: Link, wanted: Link, fresh: frozenset[str]) -> Link:
    """The link as the creations leave it: its bridge is not what it was if that was made anew.

    Of a tunnel whose MAC nobody asked for, any will do.
    """
    if isinstance(link, Vxlan) and isinstance(wanted, Vxlan) and not wanted.mac and link.mac:
        link = replace(link, mac=b"")
    return replace(link, bridge="") if isinstance(link, Vxlan | Veth) and link.bridge in fresh else link


def _update(name: str, updates: Mapping[str, Link], desired: HostState) -> Operation:
    """Only an MTU has to be set in the workload too."""
    link, actual = desired.links[name], updates[name]
    inside = desired.containers.get(name) if _is_in_workload(link) and link.mtu != actual.mtu else None
    return UpdateLink(link, actual, inside)


def _plan_uplinks(
    desired: HostState, actual: HostState, fresh: frozenset[str], withheld: frozenset[str], blocked: frozenset[str]
) -> tuple[list[Release], list[Enslave]]:
    """A bridge that is made anew has none of its ports, whatever a torn dump says."""
    unmoved = {e for e in actual.enslaved if e.bridge not in blocked and e.bridge not in fresh}
    missing = {e for e in desired.enslaved - unmoved if e.bridge not in withheld and e.bridge not in blocked}
    taken = {entry.uplink for entry in missing}
    extra = {e for e in actual.enslaved - desired.enslaved if e.bridge not in blocked and e.uplink not in taken}
    return [Release(entry) for entry in sorted(extra)], [Enslave(entry) for entry in sorted(missing)]


def _early_deletions(
    doomed: Mapping[str, Link], wanted: Mapping[str, Link], fresh: frozenset[str], enslaved: set[str]
) -> set[str]:
    """What is in the way of a creation: the same name, the same VNI, or an interface name in the same namespace.

    The last cannot be seen from here, so all stale interfaces go first when a new one comes. An uplink becomes no
    port while it carries macvlans. Everything else goes last: deleting a bridge takes 18 ms, and nobody should wait
    for that.
    """
    created = [wanted[name] for name in fresh]
    vnis = {link.vni for link in created if isinstance(link, Vxlan)}
    has_new_interface = any(_is_in_workload(link) for link in created)
    return {
        name
        for name, link in doomed.items()
        if name in fresh
        or (isinstance(link, Vxlan) and link.vni in vnis)
        or (_is_in_workload(link) and has_new_interface)
        or (isinstance(link, Macvlan | Shim) and link.uplink in enslaved)
    }


def _deletions(links: Mapping[str, Link], desired: HostState, actual: HostState) -> tuple[Operation, ...]:
    def where(link: Link) -> ContainerSide | None:
        """A macvlan is found nowhere but in its workload."""
        if not isinstance(link, Macvlan):
            return None
        return actual.containers.get(link.name) or desired.containers.get(link.name)

    ordered = sorted(links.values(), key=lambda link: (-_RANK[type(link)], link.name))
    return tuple(DeleteLink(link, where(link)) for link in ordered)


def _comes_alive(name: str, desired: HostState, actual: HostState) -> bool:
    have, want = actual.links[name], desired.links[name]
    if isinstance(have, Veth | Macvlan):
        return False
    return not have.up or _gets_another_mac(have, want) or (has_ipv6(name, desired) and not has_ipv6(name, actual))


def _gets_another_mac(have: Link, want: Link) -> bool:
    if isinstance(have, Vxlan) and isinstance(want, Vxlan):
        return bool(want.mac) and have.mac != want.mac
    return isinstance(have, Bridge | Shim) and isinstance(want, Bridge | Shim) and have.mac != want.mac
