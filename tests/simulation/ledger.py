"""What was acknowledged, and who may undo it: I5, kept by somebody who trusts no part of the product.

An operation writes down what it was told before anybody else acts on it. Whatever may remove a thing says so before it
begins; a thing that goes without such an excuse was lost. Fed with every commit of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.store import Delete, Entry, Put, Revision, Write
from kvnet import codec, keys
from kvnet.model import Endpoint, Network


@dataclass(slots=True)
class Ledger:
    """`kept`: keys that must be there, and since which acknowledgement. `gone`: ids that must never come back.

    `excused`: keys that somebody may be removing. `absent_since`: by host, when its proof of life went.
    """

    now: Any
    dead_host_after_s: float
    kept: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)
    evicted: set[str] = field(default_factory=set)
    absent_since: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, dict[str, Any]] = field(default_factory=dict)
    changing: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    changes: int = 0

    def made(self, key: str, what: str) -> None:
        if key not in self.excused:
            self.kept[key] = what

    def may_go(self, key: str) -> None:
        self.excused.add(key)
        self.kept.pop(key, None)
        self.wanted.pop(key, None)

    def removed(self, key: str, what: str) -> None:
        self.kept.pop(key, None)
        self.gone[key] = what

    def begins(self, key: str, fields: Sequence[str]) -> int:
        """Somebody changes these: until all who do are through nobody can say what they become."""
        self.changes += 1
        for name in fields:
            self.wanted.get(key, {}).pop(name, None)
            self.changing.setdefault((key, name), []).append(self.changes)
        return self.changes

    def changed(self, key: str, change: int, fields: Mapping[str, Any]) -> None:
        """It was acknowledged. That says something of a field only where nobody else was, or may still be, at it."""
        for name, value in fields.items():
            if self.changing.get((key, name)) == [change] and key not in self.excused:
                self.wanted.setdefault(key, {})[name] = value
        self.refused(key, change, tuple(fields))

    def refused(self, key: str, change: int, fields: Sequence[str]) -> None:
        """For certain; a change of which nobody knows stays open for ever."""
        for name in fields:
            # Whoever was at it meanwhile was not alone: its acknowledgement will say nothing.
            left = [-abs(one) for one in self.changing.pop((key, name), []) if abs(one) != change]
            if left:
                self.changing[key, name] = left

    # what the store does

    def hear(self, revision: Revision, before: dict[str, Entry | None], writes: Sequence[Write]) -> list[str]:
        """What of it nobody asked for."""
        return [found for write in writes if (found := self._heard(write, before[write.key]))]

    def _heard(self, write: Write, before: Entry | None) -> str:
        key = write.key
        if key.startswith(keys.ALIVE):
            self._note_life(key.removeprefix(keys.ALIVE), is_there=isinstance(write, Put))
        if isinstance(write, Put):
            if key in self.gone and before is None:
                return f"I5: {key} is back, though its removal was acknowledged ({self.gone[key]})"
            return self._compared(key, write.value)
        if isinstance(write, Delete) and before is not None:
            if key.startswith(keys.ENDPOINTS) and self._is_evicted(before):
                self.may_go(key)  # also where nobody has heard yet that it was made
            if key not in self.kept:
                return ""
            return f"I5: {key} was acknowledged ({self.kept[key]}) and is removed, and nobody asked for that"
        return ""

    def _note_life(self, host: str, *, is_there: bool) -> None:
        if is_there:
            self.absent_since.pop(host, None)
        else:
            self.absent_since.setdefault(host, self.now())

    def _is_evicted(self, before: Entry) -> bool:
        host = codec.decode(Endpoint, before.value).host
        since = self.absent_since.get(host, self.now())
        return host in self.evicted or self.now() - since >= self.dead_host_after_s - 1.0

    def _compared(self, key: str, value: bytes) -> str:
        wanted = self.wanted.get(key)
        if wanted is None:
            return ""
        model: Any = codec.decode(Network if key.startswith(keys.NETWORKS) else Endpoint, value)
        for name, expected in wanted.items():
            found = getattr(model, name)
            if found != expected:
                return f"I5: {key} was acknowledged to have {name} {expected!r}, and is written with {found!r}"
        return ""

    def missing(self, entries: Mapping[str, Entry]) -> list[str]:
        """What was acknowledged and is not there now."""
        lost = [
            f"I5: {key} was acknowledged ({what}) and is gone" for key, what in self.kept.items() if key not in entries
        ]
        back = [f"I5: {key} is there, though its removal was acknowledged" for key in self.gone if key in entries]
        return lost + back
