"""What this replica has seen of the seals: the head that the next one follows, and a witness's memory of the others.

Fed by the mirror of `seals/`. Remembers what it saw first, so that a chain which is made anew under a controller that
runs is noticed, and a seal that vanishes is not replaced as if it had never been. Forgets what went back with the store
or was left behind by a restore. Never reads and never writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.store import Change
from controller.audit.seal import Seal, read


class Chain:
    def __init__(self) -> None:
        self._seals: dict[int, Seal] = {}
        self._versions: dict[int, int] = {}
        self._present: set[int] = set()

    @property
    def head(self) -> Seal | None:
        """The newest that was ever seen of this chain."""
        return self._seals[max(self._seals)] if self._seals else None

    @property
    def seen(self) -> Mapping[int, str]:
        """Hashes by number, as they were when they were first seen."""
        return {number: seal.hash for number, seal in self._seals.items()}

    @property
    def kept(self) -> Sequence[Seal]:
        """By number; what is there now, as it was first seen."""
        return [self._seals[number] for number in sorted(self._present & self._seals.keys())]

    def is_present(self, number: int) -> bool:
        return number in self._present

    def on_change(self, changes: Sequence[Change]) -> None:
        """For the mirror of the seals."""
        arrived: list[tuple[Seal, int]] = []
        for change in changes:
            if change.entry is None:
                self._present.discard(_number(change.key))
                continue
            seal = read(change.entry)
            if seal is not None:
                arrived.append((seal, change.entry.version))
        for seal, version in sorted(arrived, key=lambda one: one[0].number):
            if seal.begins and seal.number not in self._seals:
                self._seals.clear()  # another chain: what was seen of the one before says nothing about it
            if self._seals.setdefault(seal.number, seal) is seal:
                self._versions[seal.number] = version
            self._present.add(seal.number)
        head = self.head
        if head is not None:
            for number in [one for one in self._seals if one < head.anchor and one not in self._present]:
                del self._seals[number]

    def went_back(self, revision: int) -> None:
        """The store did: seals from above `revision` were never made, and their numbers are given anew."""
        for number in [one for one in self._seals if self._versions[one] > revision]:
            del self._seals[number]


def _number(key: str) -> int:
    text = key.rpartition("/")[2]
    return int(text) if text.isdecimal() else -1
