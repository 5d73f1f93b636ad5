"""The numerous operations (addresses, routes, neighbours, forwarding entries) as batches of messages.

One table says for each operation how it is said and which refusals mean that the goal holds already. Removing from a
device that is gone is done; adding to one is a failure.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from datapath.objects import (
    AddAddress,
    Failure,
    InterfaceAddress,
    Neighbour,
    Operation,
    PortEntry,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    VtepEntry,
)
from worker.kernel import messages as m
from worker.kernel import routes
from worker.kernel.devices import Devices, Unusable
from worker.kernel.failures import failure, told
from worker.kernel.netlink import Message, Netlink
from worker.kernel.settle import until_local

Entry = Any  # one of the NamedTuples: each line of the table says which

GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EOPNOTSUPP, errno.ENXIO})
NONE: frozenset[int] = frozenset()
ANY_DEVICE = 0  # of a route via a gateway: whatever leads there


class Saying(NamedTuple):
    """How one kind of operation is said to the kernel."""

    entry: Callable[[Operation], Entry]
    device: Callable[[Entry], str]
    build: Callable[[Entry, int], Message]
    already: frozenset[int] = NONE
    removes: bool = False


def _address(entry: InterfaceAddress, index: int) -> Message:
    return m.address(index, entry.address, entry.prefix_length)


def _no_address(entry: InterfaceAddress, index: int) -> Message:
    return m.address(index, entry.address, entry.prefix_length, remove=True)


def _neighbour(entry: Neighbour, index: int) -> Message:
    return m.neighbour(index, entry[1], entry[2])


def _no_neighbour(entry: Neighbour, index: int) -> Message:
    return m.remove_neighbour(index, entry.address)


def _vtep(entry: VtepEntry, index: int) -> Message:
    return m.vtep(index, entry[1], entry[2])


def _no_vtep(entry: VtepEntry, index: int) -> Message:
    return m.remove_vtep(index, entry.mac, entry.remote)


def _port(entry: PortEntry, index: int) -> Message:
    return m.port_entry(index, entry[1])


def _no_port(entry: PortEntry, index: int) -> Message:
    return m.remove_port_entry(index, entry.mac)


_address_of, _route_of = attrgetter("address"), attrgetter("route")
_neighbour_of, _entry_of = attrgetter("neighbour"), attrgetter("entry")
_device, _port_of = attrgetter("device"), attrgetter("port")
EXISTS = frozenset({errno.EEXIST})

SAYINGS: dict[type[Operation], Saying] = {
    AddAddress: Saying(_address_of, _device, _address, EXISTS),
    RemoveAddress: Saying(_address_of, _device, _no_address, GONE, removes=True),
    ReplaceRoute: Saying(_route_of, _device, m.add_route),
    RemoveRoute: Saying(_route_of, _device, m.remove_route, GONE, removes=True),
    ReplaceNeighbour: Saying(_neighbour_of, _device, _neighbour),
    RemoveNeighbour: Saying(_neighbour_of, _device, _no_neighbour, GONE, removes=True),
    ReplaceVtep: Saying(_entry_of, _device, _vtep, EXISTS),
    RemoveVtep: Saying(_entry_of, _device, _no_vtep, GONE, removes=True),
    ReplacePort: Saying(_entry_of, _port_of, _port),
    RemovePort: Saying(_entry_of, _port_of, _no_port, GONE, removes=True),
}


def execute(
    rtnetlink: Netlink, devices: Devices, operations: Sequence[Operation], made: set[routes.Destination]
) -> list[Failure]:
    """In order, in as few sends as possible. `made`: where routes of ours lead, kept for the next time."""
    failures: list[Failure] = []
    indexes: dict[str, int | Unusable] = {"": ANY_DEVICE}
    messages: list[Message] = []
    sent: list[tuple[Operation, int]] = []
    for operation in operations:
        entry_of, device_of, build, _, removes = SAYINGS[type(operation)]
        entry = entry_of(operation)
        name = device_of(entry)
        index = indexes.get(name)
        if index is None:
            index = indexes[name] = _index(devices, name, entry)
        if isinstance(index, Unusable):
            if not (removes and index.errno == errno.ENODEV):
                failures.append(failure(operation, index))
            continue
        messages.append(build(entry, index))
        sent.append((operation, index))
    taken: list[tuple[ReplaceRoute, int]] = []
    for refusal in rtnetlink.request(messages):
        operation, index = sent[refusal.place]
        if isinstance(operation, ReplaceRoute) and refusal.errno == errno.EEXIST:
            taken.append((operation, index))
        elif refusal.errno not in SAYINGS[type(operation)].already:
            failures.append(failure(operation, told(operation, refusal.errno, refusal.text)))
    for operation, refusal in routes.replace(rtnetlink, taken, made):
        failures.append(failure(operation, told(operation, refusal.errno, refusal.text)))
    refused = {id(failed.operation) for failed in failures}
    _note_routes(made, [operation for operation, _ in sent if id(operation) not in refused])
    added = [op.address.address for op, _ in sent if isinstance(op, AddAddress) and id(op) not in refused]
    until_local(rtnetlink, added)
    return failures


def _note_routes(made: set[routes.Destination], done: Sequence[Operation]) -> None:
    for operation in done:
        if isinstance(operation, ReplaceRoute):
            made.add(routes.destination(operation.route))
        elif isinstance(operation, RemoveRoute):
            made.discard(routes.destination(operation.route))


def _index(devices: Devices, name: str, entry: Entry) -> int | Unusable:
    try:
        is_underlay_route = isinstance(entry, Route) and entry.gateway
        return (devices.any(name) if is_underlay_route else devices.ours(name)).index
    except Unusable as error:
        return error
