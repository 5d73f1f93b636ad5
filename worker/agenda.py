"""What is to be looked at next, and when: coalesced, so that a burst of reasons is one pass.

A reason without delay is due at once; one with a delay does not postpone an earlier one. That the kernel must be
read is remembered with the network until it was done. No I/O and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """`read`: those of `networks` that must be read from the kernel first. `host`: likewise the whole host's part."""

    networks: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    everything: bool = False
    host: bool = False


class Agenda:
    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._read: dict[str, float] = {}
        self._everything: float | None = None
        self._host: float | None = None
        self._hinted: set[str] = set()  # what is to be read for no other reason than a hint; "": the host's part

    def add(self, networks: Collection[str], at: float, *, read: bool = False, hinted: bool = False) -> None:
        """`hinted`: only because somebody else may have changed the kernel."""
        places = self._read if read else self._due
        for network in networks:
            if read:
                self._note(network, is_new=network not in places, hinted=hinted)
            places[network] = min(at, places.get(network, at))

    def add_everything(self, at: float) -> None:
        self._everything = at if self._everything is None else min(at, self._everything)

    def add_host(self, at: float, *, hinted: bool = False) -> None:
        self._note("", is_new=self._host is None, hinted=hinted)
        self._host = at if self._host is None else min(at, self._host)

    def put_off(self, networks: Collection[str], at: float) -> None:
        """What is due for them without a read is not due before then."""
        for network in networks:
            if network in self._due:
                self._due[network] = max(at, self._due[network])

    def drop_hints(self) -> None:
        """Nothing is read any more for no other reason than a hint."""
        for network in self._hinted:
            self._read.pop(network, None)
        if "" in self._hinted:
            self._host = None
        self._hinted.clear()

    def _note(self, network: str, *, is_new: bool, hinted: bool) -> None:
        if not hinted:
            self._hinted.discard(network)
        elif is_new:
            self._hinted.add(network)

    def next_due(self) -> float | None:
        single = [at for at in (self._everything, self._host) if at is not None]
        return min([*self._due.values(), *self._read.values(), *single], default=None)

    def take(self, now: float) -> Work | None:
        """All that is due, off the agenda: the host first and alone, for nothing holds without its rules, and that is
        quickly done. A look at everything takes the rest along."""
        if self._host is not None and self._host <= now:
            self._host = None
            self._hinted.discard("")
            return Work(host=True)
        if self._everything is not None and self._everything <= now:
            networks = frozenset(self._due.keys() | self._read.keys())
            self._due.clear()
            self._read.clear()
            self._hinted.clear()
            self._everything = self._host = None
            return Work(networks=networks, read=networks, everything=True, host=True)
        read = frozenset(network for network, at in self._read.items() if at <= now)
        plain = frozenset(network for network, at in self._due.items() if at <= now)
        if not (read or plain):
            return None
        for network in read:
            del self._read[network]
        self._hinted -= read
        for network in read | plain:
            self._due.pop(network, None)
        return Work(networks=read | plain, read=read)
