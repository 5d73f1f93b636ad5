"""Judges listings and watches against the timeline: snapshots are of one revision, no final state is missed. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from tests.torture.findings import Findings
from tests.torture.history import Demand, Listing, Seen, Stream, Told
from tests.torture.timeline import ABSENT, Timeline


class Writes:
    """Every effective write in the order of revisions, findable by prefix."""

    def __init__(self) -> None:
        self.all: list[Seen] = []
        self._by_folder: dict[str, list[Seen]] = {}

    def add(self, revision: int, key: str, version: int) -> None:
        """`Seen.writer` holds the revision here."""
        one = Seen(key, revision, version)
        self.all.append(one)
        self._by_folder.setdefault(key.partition("/")[0], []).append(one)

    def under(self, prefix: str) -> list[Seen]:
        """At least those under the prefix."""
        folder, slash, _ = prefix.partition("/")
        return self._by_folder.get(folder, []) if slash else self.all


def check_listings(
    listings: Sequence[Listing], timeline: Timeline, first: int, newest: int, findings: Findings
) -> None:
    keys = sorted(timeline.keys)
    for listing in listings:
        if listing.is_final and listing.revision < newest:
            findings.blame("lost-write", f"the end is at {listing.revision}, {newest} was acknowledged", listing.id)
        if listing.revision < first:
            findings.judged["older than the round"] += 1
            continue
        told = {seen.key: seen.version for seen in listing.seen}
        foreign = next((key for key in told if not key.startswith(listing.prefix)), None)
        if foreign is not None:
            findings.blame("list-not-a-snapshot", f"{foreign} is not under {listing.prefix!r}", listing.id)
        for key in keys[bisect_left(keys, listing.prefix) :]:
            if not key.startswith(listing.prefix):
                break
            _judge(listing, key, told.get(key, ABSENT), timeline, findings)


def _judge(listing: Listing, key: str, told: int, timeline: Timeline, findings: Findings) -> None:
    version = timeline.at(key, listing.revision)
    if told == version:
        return
    if told == ABSENT and timeline.is_excused(key, version, Demand("absent", key), listing.returned):
        return
    rule = "list-not-a-snapshot"
    if listing.is_final:
        rule = "lost-write" if told < version else "resurrected-value"
    detail = f"{key} was told {_shown(told)}, and was {_shown(version)} at revision {listing.revision}"
    findings.blame(rule, detail, listing.id)


def check_streams(
    streams: Sequence[Stream], timeline: Timeline, writes: Writes, first: int, findings: Findings
) -> None:
    for stream in streams:
        known: dict[str, int] = {}
        newest: dict[str, int] = {}
        relevant = writes.under(stream.prefix)
        place = bisect_right(relevant, max(stream.after, first), key=lambda one: one.writer)
        for told in stream.told:
            for seen in told.seen:
                _hear(stream, seen, known, newest, findings)
            end = bisect_right(relevant, told.revision, lo=place, key=lambda one: one.writer)
            latest = {one.key: one for one in relevant[place:end] if one.key.startswith(stream.prefix)}
            for one in latest.values():
                _require_told(stream, told, one, known, timeline, findings)
            place = end


def _hear(stream: Stream, seen: Seen, known: dict[str, int], newest: dict[str, int], findings: Findings) -> None:
    """A key never goes back in time within one watch; the same state may come again."""
    key, version = seen.key, seen.version
    if not key.startswith(stream.prefix):
        findings.blame("watch-went-astray", f"{key} is not under {stream.prefix!r}", stream.id)
    before = newest.get(key, 0)
    if version != ABSENT and (version < before or (version == before and known[key] == ABSENT)):
        findings.blame("watch-went-back", f"{key} to {version} after {before} or its deletion", stream.id)
    known[key] = version
    newest[key] = max(version, before)


def _require_told(
    stream: Stream, told: Told, write: Seen, known: dict[str, int], timeline: Timeline, findings: Findings
) -> None:
    """Whoever is told everything up to a revision knows a state of the key that is at least as new as this write.

    But for a key that was written again since: states in between may be merged, so its turn is then.
    """
    if timeline.is_written_after(write.key, told.revision):
        return
    key, version = write.key, known.get(write.key)
    if version is None:
        is_news = write.version != ABSENT or timeline.at(key, stream.after) != ABSENT
    elif version != ABSENT:
        is_news = version < write.writer
    else:
        is_news = write.version != ABSENT and not timeline.is_deleted_after(key, write.writer)
    if is_news and write.version != ABSENT and version in (None, ABSENT):
        is_news = not timeline.is_excused(key, write.version, Demand("absent", key), told.time)
    if is_news:
        detail = f"{key} {_shown(write.version)} (revision {write.writer}) was not told up to {told.revision}"
        findings.blame("watch-lost-event", detail, stream.id)


def _shown(version: int) -> str:
    return f"at version {version}" if version else "absent"
