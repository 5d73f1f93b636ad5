"""What is to be looked at next, and when: coalesced, so that a burst of reasons is one pass.

A reason without delay is due at once; one with a delay does not postpone an earlier one. That the kernel must be
read is remembered with the network until it was done. No I/O and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """`read`: those of `networks` whose part of the kernel must be read first. `firewall`: likewise the firewall."""

    networks: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    everything: bool = False
    firewall: bool = False


class Agenda:
    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._read: dict[str, float] = {}
        self._everything: float | None = None
        self._firewall: float | None = None

    def add(self, networks: Collection[str], at: float, *, read: bool = False) -> None:
        places = self._read if read else self._due
        for network in networks:
            places[network] = min(at, places.get(network, at))

    def add_everything(self, at: float) -> None:
        self._everything = at if self._everything is None else min(at, self._everything)

    def add_firewall(self, at: float) -> None:
        self._firewall = at if self._firewall is None else min(at, self._firewall)

    def next_due(self) -> float | None:
        single = [at for at in (self._everything, self._firewall) if at is not None]
        return min([*self._due.values(), *self._read.values(), *single], default=None)

    def take(self, now: float) -> Work | None:
        """All that is due, off the agenda. A look at everything takes the rest along."""
        if self._everything is not None and self._everything <= now:
            networks = frozenset(self._due.keys() | self._read.keys())
            self._due.clear()
            self._read.clear()
            self._everything = self._firewall = None
            return Work(networks=networks, read=networks, everything=True, firewall=True)
        read = frozenset(network for network, at in self._read.items() if at <= now)
        plain = frozenset(network for network, at in self._due.items() if at <= now)
        firewall = self._firewall is not None and self._firewall <= now
        if not (read or plain or firewall):
            return None
        for network in read:
            del self._read[network]
        for network in read | plain:
            self._due.pop(network, None)
        if firewall:
            self._firewall = None
        return Work(networks=read | plain, read=read, firewall=firewall)
