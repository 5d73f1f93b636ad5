"""Interfaces without a half on the host: macvlans, which are wholly inside a workload's namespace.

Known again by our group, which is set in the message that creates them. A namespace that is gone took its interface
along, so nothing is looked for there any more. Never touches another interface in a workload's namespace. Runs in the
kernel thread, and in helpers that it waits for.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from datapath.objects import ContainerSide, Mac, Macvlan
from worker.kernel import containers, dump
from worker.kernel import messages as m
from worker.kernel.containers import GONE
from worker.kernel.dump import Device
from worker.kernel.failures import Told
from worker.kernel.netlink import Netlink, Refusal

DELETIONS_AT_ONCE = 16


def create(rtnetlink: Netlink, uplink: Device, side: ContainerSide) -> Refusal | None:
    """Make it, or take what is there already and right; then configure it, or nothing stays.

    Raises:
        OSError: the namespace or a step of the configuration; says which.
    """
    if side.is_handed_over:
        return _leave_here(rtnetlink, uplink, side)
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


def _leave_here(rtnetlink: Netlink, uplink: Device, side: ContainerSide) -> Refusal | None:
    """For its runtime to move and configure; one that was left over goes, for nobody knows what was done to it."""
    found = _ours(rtnetlink, side.interface)
    if found is not None:
        rtnetlink.one(m.delete_link(found.index))
    return rtnetlink.one(m.create_macvlan(side, uplink.index, None))


def with_mac(within: Netlink, mac: Mac) -> Device | None:
    """The one of ours that has this MAC, whatever it is called, in the namespace that is looked into."""
    devices = map(dump.device, within.dump(m.dump_links(kind="macvlan")))
    return next((found for found in devices if found.mac == mac and dump.is_ours_group(found.group)), None)


def resize(side: ContainerSide) -> Refusal | None:
    """Its MTU becomes that of `side`. Raises: OSError where the interface is not there."""
    with containers.where_it_is(side) as within:
        found = _ours(within, side.interface)
        if found is None:
            raise OSError(errno.ENODEV, f"the interface {side.interface} vanished from {side.netns}")
        return within.one(m.set_link(found.index, mtu=side.mtu))


def delete(sides: Sequence[ContainerSide]) -> list[OSError | None]:
    """For each: None, or why it is still there. What is gone already is no failure.

    Together: after each deletion the kernel waits 18 ms for its other CPUs, without holding anything meanwhile, and
    there is no group across namespaces. Another interface under that name is left alone; a `mac` of b"" or zeros means
    whichever of ours has that name.
    """
    if len(sides) <= 1:
        return [_tried(side) for side in sides]
    with ThreadPoolExecutor(min(len(sides), DELETIONS_AT_ONCE), thread_name_prefix="kernel-delete") as helpers:
        return list(helpers.map(_tried, sides))


def _tried(side: ContainerSide) -> OSError | None:
    try:
        _delete(side)
    except OSError as error:
        return None if error.errno in GONE else error
    return None


def _delete(side: ContainerSide) -> None:
    with containers.where_it_is(side) as within:
        found = _ours(within, side.interface)
        if found is None or (any(side.mac) and found.mac != side.mac):
            return
        refusal = within.one(m.delete_link(found.index))
        if refusal is not None and refusal.errno != errno.ENODEV:
            raise Told(refusal.errno, refusal.text or f"{side.interface} in {side.netns} cannot be deleted")


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
