"""Checks a history against the store contract (backends/store.py), in time linear in its length.

No search is needed for what was acknowledged: a commit's revision is the version of every key it put, so the order of
revisions IS the order in which the commits took effect, if there is one at all. It is replayed: it must agree with real
time, every check must have held in the state before it, every refusal must have had a reason, and whatever anybody was
told must have been true. What each rule says exactly is in docs/torture.md. Pure; `wgl` is a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import chain

from tests.torture.findings import Findings
from tests.torture.history import Commit, Demand, History, Outcome, Seen
from tests.torture.reads import Writes, check_listings, check_streams
from tests.torture.timeline import ABSENT, Timeline, holds
from tests.torture.window import Window


@dataclass(frozen=True, slots=True)
class Carry:
    """What one round leaves to the next: the state at its end, and the commits that may still take effect."""

    seen: Mapping[str, Seen] = field(default_factory=dict)
    unresolved: tuple[Commit, ...] = ()
    vanishing: frozenset[tuple[str, int]] = frozenset()
    revision: int = 0


def check(history: History, carry: Carry | None = None) -> tuple[Findings, Carry]:
    """What is wrong with one round, and what the next one starts from."""
    carry = carry or Carry()
    findings = Findings()
    commits = {commit.id: commit for commit in (*carry.unresolved, *history.commits)}
    _resolve(history, commits, carry, findings)
    candidates, unplaced = _candidates(commits.values(), carry, findings)
    unresolved = [c for c in commits.values() if c.outcome is Outcome.INFO and not c.revision]
    timeline = Timeline({key: seen.version for key, seen in carry.seen.items()}, unresolved)
    for key, version in carry.vanishing:
        timeline.mark_vanishing(key, version)
    placed, writes = _replay(candidates, unplaced, timeline, findings)
    _require_real_time(placed, findings)
    _check_refusals(commits.values(), unplaced, timeline, Window(placed, carry.revision), findings)
    newest = placed[-1].revision if placed else carry.revision
    check_listings(history.listings, timeline, carry.revision, newest, findings)
    check_streams(history.streams, timeline, writes, carry.revision, findings)
    findings.judged["commits"] += len(history.commits)
    findings.judged["reads"] += len(history.reads)
    findings.judged["listings"] += len(history.listings)
    findings.judged["batches"] += sum(len(stream.told) for stream in history.streams)
    findings.judged["unknown"] += sum(c.outcome is Outcome.INFO for c in history.commits)
    findings.judged["unresolved"] += len(unresolved)
    return findings, _carried(history, placed, unresolved, timeline, max(newest, carry.revision))


def _resolve(history: History, commits: Mapping[int, Commit], carry: Carry, findings: Findings) -> None:
    """Judge every value that was told, and learn from it which unknown commits took effect, and when at the latest."""
    for seen, time, reader in _all_seen(history):
        commit = commits.get(seen.writer)
        if commit is None or seen.key not in commit.puts:
            known = carry.seen.get(seen.key)
            if known != seen and (commit is not None or seen.version > carry.revision):
                findings.blame("invented-value", f"{seen.key} was never written by commit {seen.writer}", reader)
            continue
        if commit.called > time:
            findings.blame("told-before-written", f"{seen.key} at version {seen.version}", reader, commit.id)
        if commit.outcome is Outcome.FAIL:
            findings.blame("refused-but-written", f"{seen.key} at version {seen.version}", reader, commit.id)
        elif commit.revision and commit.revision != seen.version:
            detail = f"{seen.key} was told at version {seen.version}, written at {commit.revision}"
            findings.blame("wrong-version", detail, reader, commit.id)
        elif commit.outcome is Outcome.INFO:
            commit.revision = seen.version
            commit.returned = time if commit.returned is None else min(time, commit.returned)


def _all_seen(history: History) -> Iterator[tuple[Seen, int, int]]:
    """What was told, when, and to which operation."""
    for read in history.reads:
        if read.seen.writer:
            yield read.seen, read.returned, read.id
    for listing in history.listings:
        for seen in listing.seen:
            yield seen, listing.returned, listing.id
    for stream in history.streams:
        for told in stream.told:
            for seen in told.seen:
                if seen.writer:
                    yield seen, told.time, stream.id


def _candidates(commits: Iterable[Commit], carry: Carry, findings: Findings) -> tuple[list[list[Commit]], list[Commit]]:
    """Commits that took effect, by revision; and acknowledged ones that have no place of their own.

    A commit without writes is told a revision that is another one's, and so may be one that only deletes what is not
    there: of several that only delete and were told one revision, the replay finds the one whose it is.
    """
    effective = [c for c in commits if c.outcome is Outcome.OK or (c.outcome is Outcome.INFO and c.revision)]
    taken: dict[int, list[Commit]] = {}
    for commit in effective:
        if not commit.puts:
            continue
        if commit.revision <= carry.revision and commit.outcome is Outcome.OK:
            findings.blame("revision-not-new", f"{commit.revision}, after {carry.revision}", commit.id)
        others = taken.setdefault(commit.revision, [])
        if others:
            findings.blame("revision-reused", f"both at {commit.revision}", others[0].id, commit.id)
        else:
            others.append(commit)
    unplaced = []
    for commit in effective:
        rivals = taken.setdefault(commit.revision, []) if commit.deletes else None
        if commit.puts:
            continue
        if rivals is None or (rivals and rivals[0].puts) or commit.revision <= carry.revision:
            unplaced.append(commit)
        else:
            rivals.append(commit)
    return [group for revision, group in sorted(taken.items()) if revision > carry.revision and group], unplaced


def _require_real_time(placed: Sequence[Commit], findings: Findings) -> None:
    """What was acknowledged before something else was asked for has the lower revision."""
    latest: Commit | None = None
    for commit in placed:
        if latest is not None and commit.returned is not None and latest.called > commit.returned:
            detail = f"{latest.revision} was asked for after {commit.revision} was acknowledged"
            findings.blame("real-time-order", detail, latest.id, commit.id)
        if latest is None or commit.called > latest.called:
            latest = commit


def _replay(
    candidates: Sequence[Sequence[Commit]], unplaced: list[Commit], timeline: Timeline, findings: Findings
) -> tuple[list[Commit], Writes]:
    """Every check held in the state before its commit. Fills the timeline; the commits in the order of revisions."""
    placed, writes = [], Writes()
    assumed: dict[str, int] = {}  # where an unresolved commit explains what was found
    for group in candidates:
        commit = group[0] if len(group) == 1 else _owner(group, timeline)
        unplaced += [other for other in group if other is not commit]
        placed.append(commit)
        _require_demands(commit, timeline, assumed, findings)
        for key in commit.puts:
            assumed.pop(key, None)
            timeline.put(key, commit.revision, may_vanish=key in commit.bound)
            writes.add(commit.revision, key, commit.revision)
        for key in commit.deletes:
            assumed.pop(key, None)
            if timeline.latest(key) != ABSENT:
                timeline.delete(key, commit.revision)
                writes.add(commit.revision, key, ABSENT)
    return placed, writes


def _owner(rivals: Sequence[Commit], timeline: Timeline) -> Commit:
    """Whose revision it is, of several that only delete: the one's that must have deleted something, if there is one.

    Its demands may look broken only because something unresolved came between; whether that excuses it is judged later.
    """
    certain = (commit for commit in rivals if _surely_deleted(commit))
    explained = (commit for commit in rivals if _explains(commit, rivals, timeline))
    excused = (commit for commit in rivals if _explains(commit, rivals, timeline, with_excuses=True))
    return next(chain(certain, explained, excused), rivals[0])


def _surely_deleted(commit: Commit) -> bool:
    """It was acknowledged, and wanted a key to be there that it deletes: so its revision is no other's."""
    return any(demand.key in commit.deletes and demand.kind != "absent" for demand in commit.demands)


def _explains(commit: Commit, rivals: Sequence[Commit], timeline: Timeline, *, with_excuses: bool = False) -> bool:
    """It can take effect now, changes something, and leaves the others, told the same revision, nothing to delete.

    `with_excuses`: as far as nothing unresolved may have seen to that.
    """

    def may_hold(demand: Demand, asking: Commit) -> bool:
        version = timeline.latest(demand.key)
        by = asking.called if asking.returned is None else asking.returned
        return holds(demand, version) or (with_excuses and timeline.is_excused(demand.key, version, demand, by))

    left = [(key, rival) for rival in rivals for key in rival.deletes if key not in commit.deletes]
    return (
        all(may_hold(demand, commit) for demand in commit.demands)
        and any(timeline.latest(key) != ABSENT for key in commit.deletes)
        and all(may_hold(Demand("absent", key), rival) for key, rival in left)
    )


def _require_demands(commit: Commit, timeline: Timeline, assumed: dict[str, int], findings: Findings) -> None:
    for demand in commit.demands:
        key = demand.key
        version = assumed[key] if key in assumed else timeline.latest(key)
        if holds(demand, version):
            continue
        by = commit.called if commit.returned is None else commit.returned
        if not timeline.is_excused(key, version, demand, by):
            findings.blame("check-did-not-hold", _told(demand, version), commit.id)
        elif demand.kind == "absent":
            assumed[key] = ABSENT


class _Moments:
    """Where commits that changed nothing stand among those that did: each at the earliest moment that explains it.

    One that was answered before another was asked for stands no later. Must be asked in the order of calls.
    """

    def __init__(self, timeline: Timeline, window: Window) -> None:
        self._timeline = timeline
        self._window = window
        self._floor: dict[str, int] = {}
        self._answering: dict[str, list[tuple[int, int]]] = {}  # per key: when it is answered, where it stands

    def explains(self, demand: Demand, commit: Commit, *, holds_then: bool) -> bool:
        key, returned = demand.key, commit.called if commit.returned is None else commit.returned
        low, high = self._window.of(commit.called, returned)
        answering = self._answering.setdefault(key, [])
        while answering and answering[0][0] < commit.called:
            self._floor[key] = max(self._floor.get(key, 0), heappop(answering)[1])
        low = max(low, self._floor.get(key, 0))
        is_excused = False
        for revision, version in self._timeline.between(key, low, high):
            if holds(demand, version) == holds_then:
                heappush(answering, (returned, revision))
                return True
            is_excused |= self._timeline.is_excused(key, version, demand, returned, holds=holds_then)
        return is_excused


def _check_refusals(
    commits: Iterable[Commit], unplaced: Sequence[Commit], timeline: Timeline, window: Window, findings: Findings
) -> None:
    """Each check that a refusal names failed at some moment of the call, each other one held at some moment."""
    moments = _Moments(timeline, window)
    refused = [commit for commit in commits if commit.conflict]
    for commit in sorted((*refused, *unplaced), key=lambda commit: commit.called):
        named = set(commit.conflict)
        if not named <= {demand.key for demand in commit.demands}:
            findings.blame("conflict-names-another-key", ", ".join(commit.conflict), commit.id)
        if not named and _surely_deleted(commit):
            findings.blame("revision-reused", f"it deleted something, at {commit.revision} of another", commit.id)
        absent = () if named else (Demand("absent", key) for key in commit.deletes)
        for demand in (*commit.demands, *absent):
            if moments.explains(demand, commit, holds_then=demand.key not in named):
                continue
            rule = "conflict-without-reason" if demand.key in named else "conflict-not-named"
            wanted = _told(demand, timeline.latest(demand.key))
            findings.blame(rule if named else "check-did-not-hold", wanted, commit.id)
    findings.judged["conflicts"] += len(refused)


def _carried(
    history: History, placed: Sequence[Commit], unresolved: Sequence[Commit], timeline: Timeline, revision: int
) -> Carry:
    """The final listing is the truth; without one, what was replayed. Drops what can never take effect any more."""
    final = next((listing for listing in history.listings if listing.is_final), None)
    if final is not None:
        seen = {one.key: one for one in final.seen}
        revision = max(revision, final.revision)
    else:
        writer = {commit.revision: commit.id for commit in placed}
        latest = {key: timeline.latest(key) for key in timeline.keys}
        seen = {key: Seen(key, writer.get(v, 0), v) for key, v in latest.items() if v != ABSENT}
    versions = {key: one.version for key, one in seen.items()}
    alive = [
        commit
        for commit in unresolved
        if all(versions.get(d.key, ABSENT) == d.version for d in commit.demands if d.kind == "unchanged")
    ]
    vanishing = frozenset(one for one in timeline.vanishing if versions.get(one[0]) == one[1])
    return Carry(seen, tuple(alive), vanishing, revision)


def _told(demand: Demand, version: int) -> str:
    wanted = f"unchanged since {demand.version}" if demand.kind == "unchanged" else demand.kind
    return f"{demand.key} was to be {wanted}, and was {f'at version {version}' if version else 'absent'}"
