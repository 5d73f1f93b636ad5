"""What one host shows of the way between two endpoints, on the real kernel: the host's part, and inside the workloads.

Reads only, and only what was asked. Opens paths that came from outside and starts programs, so it runs in a thread of
its own, never in the kernel thread, and never on the event loop. What cannot be read is told in `unread`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from datapath.rules.ruleset import Chain
from datapath.trace.drops import drops
from datapath.trace.seen import Crossing, Inner, Question, SeenDrop, SeenInside, SeenWay, Sight
from worker.kernel.firewall import find_nft
from worker.kernel.namespaces import entered, open_namespace
from worker.kernel.netlink import Netlink
from worker.kernel.other_rules import LARGEST_INSIDE, OtherRules
from worker.kernel.rules import MARK, TABLE
from worker.kernel.sight import Namespace, is_listening, settings

T = TypeVar("T")

MOST_LINKS = 64  # of a workload's that are told


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint's interface is, by its record. `device`, `inode`: which namespace that was; 0 = unknown."""

    netns: str
    interface: str
    device: int = 0
    inode: int = 0
    order: int = 0
    is_handed_over: bool = False
    routes: tuple[str, ...] = ()


def look(
    question: Question,
    places: Mapping[str, Place],
    *,
    netns: str | None = None,
    nft: str | None = None,
    with_own: bool = False,
) -> Sight:
    """`netns`: the host's own namespace, where that is not this process's. `with_own`: our tables' rules are judged as
    others' are, because they are not as we make them.

    Raises:
        OSError: nothing can be read.
    """
    descriptor = None if netns is None else open_namespace(netns)
    try:
        with entered(descriptor):
            sight, chains = _of_host(question, nft or find_nft(), with_own=with_own)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    unread = list(sight.unread)
    insides, blocked = [], list(_judged(question.crossings, "", sight, chains, with_own=with_own))
    for inner in question.inner:
        inside, more, missing = _inside(inner, question, places.get(inner.endpoint), nft or find_nft())
        insides.append(inside)
        blocked += more
        unread += missing
    return replace(sight, insides=tuple(insides), drops=tuple(blocked), unread=tuple(dict.fromkeys(unread)))


def _of_host(question: Question, nft: str, *, with_own: bool) -> tuple[Sight, list[Chain]]:
    rules = OtherRules(nft, with_own=with_own)
    unread: list[str] = []
    with _opened(None) as host:
        found_ways = tuple(_read(unread, lambda: [host.way(asked) for asked in question.ways]))
        underlays = {way.device for way in found_ways if way.device}
        known = {*question.devices, *underlays}
        known |= {a.device for a in host.addresses(question.addresses)} if question.addresses else set()
        links = [link for name in sorted(known) if (link := host.link(name)) is not None]
        sight = Sight(
            host="",
            links=tuple(links),
            addresses=tuple(_read(unread, lambda: host.addresses(question.addresses, question.devices))),
            entries=tuple(_read(unread, lambda: host.entries(links, question.macs))),
            neighbours=tuple(
                _read(unread, lambda: host.neighbours(sorted(known), [*question.addresses, *_gateways(found_ways)]))
            ),
            ways=found_ways,
            settings=settings([*question.settings, *(f"net/ipv4/conf/{name}/rp_filter" for name in known)]),
        )
    chains = rules.chains() if any(not crossing.inside for crossing in question.crossings) else []
    return replace(sight, unread=(*unread, *rules.unread)), chains


def _gateways(ways: Iterable[SeenWay]) -> list[str]:
    return [way.gateway for way in ways if way.gateway]


def _inside(
    inner: Inner, question: Question, place: Place | None, nft: str
) -> tuple[SeenInside, list[SeenDrop], list[str]]:
    if place is None or not place.interface:
        return SeenInside(inner.endpoint, "not-attached"), [], []
    known = SeenInside(
        inner.endpoint,
        "gone",
        place.netns,
        place.interface,
        order=place.order,
        is_handed_over=place.is_handed_over,
        routes=place.routes,
    )
    if place.is_handed_over and not place.netns:
        return replace(known, state="waiting"), [], []
    try:
        descriptor = open_namespace(place.netns)
    except (OSError, ValueError) as error:
        return replace(known, detail=getattr(error, "strerror", None) or str(error)), [], []
    try:
        found = os.fstat(descriptor)
        if place.inode and (found.st_dev, found.st_ino) != (place.device, place.inode):
            return replace(known, state="another"), [], []
        return _looked_into(inner, question, known, descriptor, nft)
    except OSError as error:
        return replace(known, state="unreadable", detail=error.strerror or str(error)), [], []
    finally:
        os.close(descriptor)


def _looked_into(
    inner: Inner, question: Question, known: SeenInside, descriptor: int, nft: str
) -> tuple[SeenInside, list[SeenDrop], list[str]]:
    with _opened(descriptor) as there:
        links = there.links()
        first = [link for link in links if link.name == known.interface]
        others = [link for link in links if link.name != known.interface][:MOST_LINKS]
        names = [link.name for link in (*first, *others)]
        ways = tuple(there.way(way) for way in inner.ways)
        near = {*inner.near, *_gateways(ways)}
        seen = replace(
            known,
            state="ok" if first else "no-interface",
            links=(*first, *others),
            addresses=tuple(there.addresses()),
            ways=ways,
            neighbours=tuple(there.neighbours(names, sorted(near))),
        )
    if inner.listens:
        with entered(descriptor):
            seen = replace(seen, is_listening=is_listening(inner.listens))
    crossings = [crossing for crossing in question.crossings if crossing.inside == inner.endpoint]
    if not crossings:
        return seen, [], []
    rules = OtherRules(nft, largest=LARGEST_INSIDE)
    with entered(descriptor):
        chains = rules.chains()
    sight = Sight("", links=seen.links, addresses=seen.addresses, ways=seen.ways)
    return seen, list(_judged(crossings, inner.endpoint, sight, chains)), rules.unread


def _judged(
    crossings: Iterable[Crossing], inside: str, sight: Sight, chains: list[Chain], *, with_own: bool = False
) -> Iterator[SeenDrop]:
    for crossing in crossings:
        if crossing.inside != inside or (crossing.given and sight.settings.get(crossing.given) != "1"):
            continue
        packet = replace(
            crossing,
            device_in=_device(crossing.device_in, sight),
            device_out=_device(crossing.device_out, sight),
        )
        yield from drops(packet, chains, _mark(crossing, chains, with_own=with_own))


def _mark(crossing: Crossing, chains: list[Chain], *, with_own: bool) -> int:
    """What our chain on the forward hook has set: for those behind it there, and for the bridge that it leaves by.

    Among `chains` it is only where ours are judged, too; where they are not, it is as we make it.
    """
    place = crossing.layer, crossing.hook
    has_ours = any((chain.family, chain.table, chain.hook) == ("inet", TABLE, "forward") for chain in chains)
    if place == ("ip", "forward"):
        return MARK if has_ours or not with_own else 0
    return MARK if has_ours and place == ("bridge", "output") else 0


def _device(named: str, sight: Sight) -> str:
    """ "@ADDRESS": the device that has it, else the one that leads there."""
    if not named.startswith("@"):
        return named
    has_it = (a.device for a in sight.addresses if a.address == named[1:])
    leads_there = (way.device for way in sight.ways if way.to == named[1:] and way.kind == "unicast")
    return next(has_it, "") or next(leads_there, "")


def _read(unread: list[str], read: Callable[[], list[T]]) -> list[T]:
    try:
        return read()
    except OSError as error:
        unread.append(error.strerror or str(error))
        return []


@contextmanager
def _opened(descriptor: int | None) -> Iterator[Namespace]:
    made = Namespace(Netlink(namespace=descriptor, small=descriptor is not None))
    try:
        yield made
    finally:
        made.close()
