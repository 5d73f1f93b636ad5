"""Our routes: read back in the words they were wanted in, and replaced only where they are ours.

A route via a peer names no device: the kernel takes the one that leads there when the route is made, and keeps it. So
a route is told without one only as long as that device still is the way; else it differs and is made again. A foreign
route to one of our destinations stays; but one that came where ours was (`ip route replace`) is a change of ours, and
is replaced in turn. Runs in the kernel thread only.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence

from datapath.objects import Ip, ReplaceRoute, Route
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.netlink import Netlink, Refusal

Destination = tuple[Ip, int]

IN_THE_WAY = Refusal(0, errno.EEXIST, "a route to that destination exists and is not kvnet's; left alone")


class Ways:
    """Which device leads to a gateway, asked once for each."""

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._known: dict[Ip, int] = {}

    def to(self, gateway: Ip) -> int:
        """0 where nothing leads there."""
        if gateway not in self._known:
            self._known[gateway] = self._ask(gateway)
        return self._known[gateway]

    def _ask(self, gateway: Ip) -> int:
        try:
            body = self._rtnetlink.get(m.get_route(gateway))
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return 0
            raise
        return 0 if body is None else dump.way(body)


def named(rtnetlink: Netlink, found: Iterable[tuple[Route, int]], names: Mapping[int, str]) -> Iterable[Route]:
    """The routes with their device's name. `names`: of ours and of whatever else a route of ours is over."""
    ways = Ways(rtnetlink)
    for route, index in found:
        if route.gateway and not route.onlink and ways.to(route.gateway) == index:
            yield route
        else:
            yield route._replace(device=dump.name_of(names, index))


def is_within(route: Route, blocks: Collection[tuple[Ip, int]]) -> bool:
    """Whether the route is to one of the blocks, or to a part of one."""
    width = 8 * len(route.destination)
    wanted = int.from_bytes(route.destination, "big")
    return any(
        len(address) == len(route.destination)
        and length <= route.prefix_length
        and (wanted ^ int.from_bytes(address, "big")) >> (width - length) == 0
        for address, length in blocks
    )


def destination(route: Route) -> Destination:
    return route.destination, route.prefix_length


def replace(
    rtnetlink: Netlink, taken: Sequence[tuple[ReplaceRoute, int]], made: Collection[Destination]
) -> list[tuple[ReplaceRoute, Refusal]]:
    """To their destinations (beside each: its device's index) there are routes: replace those that are all ours.

    `made`: destinations that a route of ours led to before, so whatever is there now took its place.
    """
    if not taken:
        return []
    holders: dict[Destination, bool] = {}
    for body in rtnetlink.dump(m.dump_routes()):
        there = dump.destination(body)
        holders[there] = holders.get(there, True) and dump.is_our_route(body)
    refused = []
    replaceable: list[tuple[ReplaceRoute, int]] = []
    for operation, index in taken:
        wanted = destination(operation.route)
        if wanted in made or holders.get(wanted, True):
            replaceable.append((operation, index))
        else:
            refused.append((operation, IN_THE_WAY))
    messages = [m.add_route(operation.route, index, replace=True) for operation, index in replaceable]
    refused += [(replaceable[refusal.place][0], refusal) for refusal in rtnetlink.request(messages)]
    return refused
