"""Executes operations in their order, many to a send: neighbours of one kind go together.

A failure does not stop the rest, and what is already so is no failure. Runs in the kernel thread only.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from itertools import groupby

from datapath.objects import (
    Announce,
    CloseGate,
    CreateLink,
    DeleteLink,
    Enslave,
    Failure,
    ForgetCallers,
    ForgetFlows,
    OpenGate,
    Operation,
    Release,
    SetFirewall,
    SetSysctl,
    UpdateLink,
)
from worker.kernel import callers, enslaving, entries, routes
from worker.kernel.announce import Announcer
from worker.kernel.conntrack import Flows
from worker.kernel.devices import Devices
from worker.kernel.failures import failure
from worker.kernel.firewall import FirewallTables
from worker.kernel.gates import Gates
from worker.kernel.links import Links
from worker.kernel.messages import dump_addresses
from worker.kernel.netlink import Netlink
from worker.kernel.sysctls import write_sysctl


class Applier:
    """What it takes to change the kernel; one per namespace."""

    def __init__(
        self,
        rtnetlink: Netlink,
        firewall: FirewallTables,
        announcer: Announcer,
        flows: Flows,
        gates: Gates,
        rng: random.Random,
    ) -> None:
        self._rtnetlink = rtnetlink
        self._firewall = firewall
        self._announcer = announcer
        self._flows = flows
        self._gates = gates
        self._rng = rng
        self._routes: set[routes.Destination] = set()

    def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        failures: list[Failure] = []
        devices = Devices(self._rtnetlink)
        links = Links(self._rtnetlink, devices, failures, self._rng)
        for kind, group in groupby(operations, key=_kind):
            run = list(group)
            if kind is Operation:
                failures += entries.execute(self._rtnetlink, devices, run, self._routes)
            elif isinstance(kind, tuple):
                links.create([op for op in run if isinstance(op, CreateLink)])
            elif kind is UpdateLink:
                links.update([op for op in run if isinstance(op, UpdateLink)])
            elif kind is DeleteLink:
                links.delete([op for op in run if isinstance(op, DeleteLink)])
            elif kind is ForgetFlows:
                failures += self._flows.forget([op for op in run if isinstance(op, ForgetFlows)])
            elif kind is ForgetCallers:
                own = callers.local_addresses(self._rtnetlink.dump(dump_addresses()))
                failures += callers.forget(self._flows, [op for op in run if isinstance(op, ForgetCallers)], own)
            else:
                failures += [failed for op in run if (failed := self._one(op, devices)) is not None]
        return failures

    def _one(self, operation: Operation, devices: Devices) -> Failure | None:
        match operation:
            case SetSysctl(path, value):
                return tried(operation, lambda: write_sysctl(path, value))
            case SetFirewall(firewall):
                return tried(operation, lambda: self._firewall.set(firewall))
            case Announce(neighbour):
                return tried(operation, lambda: self._announcer.announce(neighbour))
            case OpenGate() | CloseGate():
                return self._gates.execute(operation)
            case Enslave(entry):
                return tried(operation, lambda: enslaving.enslave(self._rtnetlink, devices, operation, entry))
            case Release(entry):
                return tried(operation, lambda: enslaving.release(self._rtnetlink, devices, entry))
            case _:
                return Failure(operation, errno.EINVAL, f"{type(operation).__name__} is not known here")


def tried(operation: Operation, action: Callable[[], None]) -> Failure | None:
    try:
        action()
    except OSError as error:
        return failure(operation, error)
    except ValueError as error:
        return Failure(operation, errno.EINVAL, str(error))
    return None


def _kind(operation: Operation) -> object:
    """What may go together. Links are made kind by kind, because the later ones need the earlier ones' indexes."""
    if type(operation) in entries.SAYINGS:
        return Operation
    if isinstance(operation, CreateLink):
        return (CreateLink, type(operation.link))
    return type(operation)
