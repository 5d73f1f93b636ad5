"""The states that every key had, in the order of revisions, and what unresolved commits may have added to them.

A commit whose outcome is unknown and whose values nobody ever saw may have taken effect all the same (and been
overwritten before anybody looked). For each of its keys alone it may explain what the acknowledged commits do not:
that is weaker than all-or-nothing, and never accuses a correct store. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping

from tests.torture.history import Commit, Demand

ABSENT = 0


class Timeline:
    """Versions are revisions; `ABSENT` stands for a key that does not exist."""

    def __init__(self, initial: Mapping[str, int], unresolved: Iterable[Commit]) -> None:
        self._revisions: dict[str, list[int]] = {key: [version] for key, version in initial.items()}
        self._versions: dict[str, list[int]] = {key: [version] for key, version in initial.items()}
        self._vanishing: set[tuple[str, int]] = set()
        self._unresolved: dict[str, list[Commit]] = {}
        for commit in unresolved:
            for key in (*commit.puts, *commit.deletes):
                self._unresolved.setdefault(key, []).append(commit)

    @property
    def keys(self) -> Iterable[str]:
        return self._versions.keys()

    def put(self, key: str, revision: int, *, may_vanish: bool) -> None:
        """In the order of revisions."""
        self._add(key, revision, revision)
        if may_vanish:
            self._vanishing.add((key, revision))

    def delete(self, key: str, revision: int) -> None:
        self._add(key, revision, ABSENT)

    def may_vanish(self, key: str, version: int) -> bool:
        """Put with a session: it may go at any time."""
        return (key, version) in self._vanishing

    def mark_vanishing(self, key: str, version: int) -> None:
        self._vanishing.add((key, version))

    @property
    def vanishing(self) -> frozenset[tuple[str, int]]:
        return frozenset(self._vanishing)

    def latest(self, key: str) -> int:
        versions = self._versions.get(key)
        return versions[-1] if versions else ABSENT

    def at(self, key: str, revision: int) -> int:
        """The key's version right after that revision."""
        revisions = self._revisions.get(key)
        if revisions is None:
            return ABSENT
        place = bisect_right(revisions, revision) - 1
        return self._versions[key][place] if place >= 0 else ABSENT

    def between(self, key: str, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Every version that was in effect after `low` or any later revision below `high`, and since when."""
        yield low, self.at(key, low)
        revisions = self._revisions.get(key, [])
        for place in range(bisect_right(revisions, low), len(revisions)):
            if revisions[place] >= high:
                return
            yield revisions[place], self._versions[key][place]

    def is_written_after(self, key: str, revision: int) -> bool:
        revisions = self._revisions.get(key)
        return revisions is not None and revisions[-1] > revision

    def is_deleted_after(self, key: str, revision: int) -> bool:
        """Whether the key is absent at some time after that revision."""
        revisions = self._revisions.get(key, [])
        return ABSENT in self._versions.get(key, [])[max(0, bisect_right(revisions, revision)) :]

    def is_excused(self, key: str, version: int, wanted: Demand, by: int, *, holds: bool = True) -> bool:
        """Whether, up to the time `by`, something unresolved may have made `wanted` true (or false) of this state."""
        wants_absent = (wanted.kind == "absent") == holds
        if wants_absent and self.may_vanish(key, version):
            return True
        for commit in self._unresolved.get(key, ()):
            if commit.called > by or not _may_apply(commit, key, version):
                continue
            if key in commit.deletes if wants_absent else key in commit.puts and wanted.kind != "unchanged":
                return True
            if wanted.kind == "unchanged" and not holds:
                return True  # whatever it does to the key, the version is another one afterwards
        return False

    def _add(self, key: str, revision: int, version: int) -> None:
        if key in self._revisions:
            self._revisions[key].append(revision)
            self._versions[key].append(version)
        else:
            self._revisions[key] = [0, revision]
            self._versions[key] = [ABSENT, version]


def holds(demand: Demand, version: int) -> bool:
    if demand.kind == "absent":
        return version == ABSENT
    if demand.kind == "present":
        return version != ABSENT
    return version == demand.version


def _may_apply(commit: Commit, key: str, version: int) -> bool:
    return all(holds(demand, version) for demand in commit.demands if demand.key == key)
