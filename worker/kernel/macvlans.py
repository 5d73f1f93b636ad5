"""Interfaces without a half on the host: macvlans, which are wholly inside a workload's namespace.

Known again by our group, which is set in the message that creates them. A namespace that is gone took its interface
along, so nothing is looked for there any more. Never touches another interface in a workload's namespace. Runs in the
kernel thread only.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping

from datapath.objects import ContainerSide, Macvlan
from worker.kernel import containers, dump
from worker.kernel import messages as m
from worker.kernel.containers import GONE
from worker.kernel.dump import Device
from worker.kernel.netlink import Netlink, Refusal


def create(rtnetlink: Netlink, uplink: Device, side: ContainerSide) -> Refusal | None:
    """Make it, or take what is there already and right; then configure it, or nothing stays.

    Raises:
        OSError: the namespace or a step of the configuration; says which.
    """
    with containers.opened(side.netns) as namespace, containers.inside(namespace) as within:
        found = _ours(within, side.interface)
        if found is not None and not (found.mac == side.mac and found.peer == uplink.index):
            within.one(m.delete_link(found.index))
            found = None
        if found is None:
            refusal = rtnetlink.one(m.create_macvlan(side, uplink.index, namespace))
            if refusal is not None:
                return refusal
        try:
            containers.configure(side, namespace)
        except OSError:
            made = _ours(within, side.interface)
            if made is not None:
                within.one(m.delete_link(made.index))
            raise
    return None


def resize(side: ContainerSide) -> Refusal | None:
    """Its MTU becomes that of `side`. Raises: OSError where the interface is not there."""
    with containers.opened(side.netns) as namespace, containers.inside(namespace) as within:
        found = _ours(within, side.interface)
        if found is None:
            raise OSError(errno.ENODEV, f"the interface {side.interface} vanished from {side.netns}")
        return within.one(m.set_link(found.index, mtu=side.mtu))


def delete(side: ContainerSide) -> Refusal | None:
    """What is gone already is no failure; another interface under that name is left alone.

    `side.mac` b"" = whichever of ours has that name.
    """
    try:
        with containers.opened(side.netns) as namespace, containers.inside(namespace) as within:
            found = _ours(within, side.interface)
            is_meant = found is not None and (not any(side.mac) or found.mac == side.mac)
            if found is None or not is_meant:
                return None
            refusal = within.one(m.delete_link(found.index))
            return None if refusal is None or refusal.errno == errno.ENODEV else refusal
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def read(
    wanted: Mapping[str, tuple[str, str]], name_of: Callable[[int], str]
) -> Iterator[tuple[Macvlan, ContainerSide]]:
    """Those of `wanted` (name -> namespace's path, interface) that are there. `name_of`: the uplink's, by index."""
    by_namespace: dict[str, list[tuple[str, str]]] = {}
    for name, (path, interface) in wanted.items():
        by_namespace.setdefault(path, []).append((name, interface))
    for path, entries in by_namespace.items():
        for name, found in _found_in(path, entries):
            side = ContainerSide(path, wanted[name][1], found.mac, found.mtu, (), ())
            yield Macvlan(name, name_of(found.peer), found.mtu), side


def _found_in(path: str, entries: list[tuple[str, str]]) -> list[tuple[str, Device]]:
    with contextlib.ExitStack() as stack:
        try:
            within = stack.enter_context(containers.inside(stack.enter_context(containers.opened(path))))
        except OSError as error:
            if error.errno in GONE:
                return []
            raise
        found = [(name, _ours(within, interface)) for name, interface in entries]
    return [(name, device) for name, device in found if device is not None]


def _ours(within: Netlink, interface: str) -> Device | None:
    body = within.get(m.get_link(interface))
    found = None if body is None else dump.device(body)
    return found if found is not None and found.kind == "macvlan" and dump.is_ours_group(found.group) else None
