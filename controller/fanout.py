"""One tape of events for all who listen: each event is encoded once, and a listener is only a place on the tape.

Memory is bounded by the tape, in events and in bytes, however many listen and however slowly: whom the tape overtakes
is cut, and told the revision from which it can go on. What came before a listener is read from the journal, as fast as
it reads. Listeners are woken together, and the less often the more of them there are, so that what came meanwhile goes
out in one piece. Knows nothing of HTTP; never waits for a listener.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from controller.events import EventLog
from controller.security.sight import Sight
from controller.views import Event
from kvnet.errors import Gone

MOST_BYTES = 16 * 2**20
PAUSE_PER_LISTENER_S = 0.0002
LONGEST_PAUSE_S = 0.1
ENCODED_IS_LARGER = 2
MOST_OF_THE_PAST = 100  # revisions at once, of which a filter may leave nothing
REMEMBERED = 64  # pieces, and encoded parts of the past, for listeners who are about as far


@dataclass(frozen=True, slots=True)
class Filter:
    """`kinds`: "network" stands for every kind of event about networks. Empty: all. `network`: an id, "" for any.

    `hidden`: kinds that are told in no case. `sight`: of who does not see everything.
    """

    kinds: tuple[str, ...] = ()
    network: str = ""
    hidden: tuple[str, ...] = ()
    sight: Sight | None = None

    def takes(self, kind: str, network: str) -> bool:
        if self.network and network != self.network:
            return False
        if self.hidden and kind.startswith(self.hidden):
            return False
        return not self.kinds or any(kind == one or kind.startswith(one + ".") for one in self.kinds)


EVERYTHING = Filter()


class Part(NamedTuple):
    kind: str
    network: str
    data: bytes


class Place(NamedTuple):
    """`part` of the entry number `entry` is the next to be told."""

    entry: int
    part: int = 0


class Piece(NamedTuple):
    """What can be sent at once. `told`: the last revision that is in it, or was left out by the filter, as a whole."""

    data: bytes
    place: Place
    told: int


class Entry:
    """A commit (`revision`), or an event that is not in the journal (0). Encoded when the first listener wants it."""

    __slots__ = ("parts", "revision", "size", "source")

    def __init__(self, revision: int, source: Sequence[Event] | None, size: int) -> None:
        self.revision = revision
        self.source = source
        self.size = size
        self.parts: tuple[Part, ...] | None = None


class Fanout:
    """`encode`: an event as it is sent. `queue`: how many entries a listener may be behind."""

    def __init__(
        self, log: EventLog, encode: Callable[[Event], bytes], queue: int, most_bytes: int = MOST_BYTES
    ) -> None:
        self._log = log
        self._encode = encode
        self._queue = queue
        self._most_bytes = most_bytes
        self._tape: deque[Entry] = deque()
        self._base = 0
        self._bytes = 0
        self._pieces: dict[tuple[Filter, Place], tuple[int, Piece]] = {}
        self._past: dict[int, tuple[Part, ...]] = {}
        self._listeners: set[Listener] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._woken_at = 0.0
        log.listen(self._on_entry, self._on_cut)

    @property
    def end(self) -> int:
        return self._base + len(self._tape)

    @property
    def size(self) -> int:
        """Bytes that the tape holds."""
        return self._bytes

    def listener(self, start: int | None = None, wanted: Filter = EVERYTHING) -> Listener:
        """Everything after `start`, and then what happens; without it only what happens from now on.

        Raises:
            Gone: `start` is older than what is kept.
        """
        start, backlog = self._log.backlog(start)
        listener = Listener(self, wanted, start, backlog, Place(self.end))
        self._listeners.add(listener)
        self._log.audience += 1
        return listener

    def leave(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._listeners.discard(listener)
        self._log.audience -= 1
        if not self._listeners:
            self._base = self.end
            self._tape.clear()
            self._past.clear()
            self._pieces.clear()
            self._bytes = 0

    def entry(self, number: int) -> Entry:
        return self._tape[number - self._base]

    def piece(self, wanted: Filter, place: Place, limit: int) -> Piece:
        """From `place` on, as much as fits into `limit` bytes, and at least one part."""
        end = self.end
        known = self._pieces.get((wanted, place))
        if known is not None and known[0] == end:
            return known[1]
        piece = self._cut_out(wanted, place, limit)
        if len(self._pieces) >= REMEMBERED:
            self._pieces.clear()
        self._pieces[wanted, place] = end, piece
        return piece

    def past(self, revision: int, sight: Sight | None = None) -> tuple[Part, ...] | None:
        """Of a commit that is in the journal; None if it is not (any more)."""
        if sight is not None:
            seen = self._log.events_of(revision)
            return None if seen is None else self._seen(seen, sight)
        parts = self._past.get(revision)
        if parts is None:
            events = self._log.events_of(revision)
            if events is None:
                return None
            if len(self._past) >= REMEMBERED:
                del self._past[next(iter(self._past))]
            parts = self._past[revision] = self._encoded(events)
        return parts

    def _cut_out(self, wanted: Filter, place: Place, limit: int) -> Piece:
        found: list[bytes] = []
        size, told = 0, 0
        number, first = place
        for entry in self._from(number):
            for i, part in enumerate(self._parts_for(entry, wanted.sight)[first:], first):
                if size >= limit:
                    return Piece(b"".join(found), Place(number, i), told)
                if wanted.takes(part.kind, part.network):
                    found.append(part.data)
                    size += len(part.data)
            number, first, told = number + 1, 0, max(told, entry.revision)
        return Piece(b"".join(found), Place(number), told)

    def _from(self, number: int) -> Iterator[Entry]:
        """Read from the end backwards, because that is where almost everybody is."""
        count = self.end - number
        return reversed([self._tape[-i] for i in range(1, count + 1)])

    def _parts(self, entry: Entry) -> tuple[Part, ...]:
        if entry.parts is None:
            events = self._log.events_of(entry.revision) if entry.source is None else entry.source
            entry.parts = self._encoded(events or ())
        return entry.parts

    def _parts_for(self, entry: Entry, sight: Sight | None) -> tuple[Part, ...]:
        """As somebody may see it: as many parts as there are, so that places mean the same for all."""
        if sight is None:
            return self._parts(entry)
        events = self._log.events_of(entry.revision) if entry.source is None else entry.source
        return self._seen(events or (), sight)

    def _seen(self, events: Sequence[Event], sight: Sight) -> tuple[Part, ...]:
        shown = [(event, sight.event(event)) for event in events]
        return tuple(
            Part(event.kind, event.network, b"" if told is None else self._encode(told)) for event, told in shown
        )

    def _encoded(self, events: Sequence[Event]) -> tuple[Part, ...]:
        return tuple(Part(event.kind, event.network, self._encode(event)) for event in events)

    def _on_entry(self, revision: int, source: Sequence[Event] | None, size: int) -> None:
        if not self._listeners:
            return
        size *= ENCODED_IS_LARGER
        self._tape.append(Entry(revision, source, size))
        self._bytes += size
        base = self._base
        while len(self._tape) > self._queue or (self._bytes > self._most_bytes and len(self._tape) > 1):
            self._bytes -= self._tape.popleft().size
            self._base += 1
        if base != self._base:
            self._drop_the_slow()
        self._ring()

    def _drop_the_slow(self) -> None:
        for listener in [one for one in self._listeners if one.place.entry < self._base]:
            self._log.dropped += 1
            self._cut(listener, f"more than {len(self._tape)} changes were waiting to be read", is_resumable=True)

    def _on_cut(self, why: str) -> None:
        for listener in list(self._listeners):
            self._cut(listener, why, is_resumable=False)

    def _cut(self, listener: Listener, why: str, *, is_resumable: bool) -> None:
        self.leave(listener)
        listener.cut(why, is_resumable=is_resumable)
        listener.wake()

    def _ring(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            pause_s = min(LONGEST_PAUSE_S, len(self._listeners) * PAUSE_PER_LISTENER_S)
            self._timer = loop.call_later(max(0.0, self._woken_at + pause_s - loop.time()), self._wake_all)

    def _wake_all(self) -> None:
        self._timer = None
        self._woken_at = asyncio.get_running_loop().time()
        for listener in self._listeners:
            listener.wake()


class Listener:
    """A place on the tape, after what of the past is still to be told. `wake` is called when there may be more."""

    def __init__(self, fanout: Fanout, wanted: Filter, start: int, backlog: Sequence[int], place: Place) -> None:
        self._fanout = fanout
        self._wanted = wanted
        self._start = start
        self._backlog = deque(backlog)
        self._part = 0
        self._gone: Gone | None = None
        self.place = place
        self.told = start
        self.wake: Callable[[], None] = lambda: None

    @property
    def is_through_the_past(self) -> bool:
        return not self._backlog

    def take(self, limit: int) -> bytes:
        """What is next, about `limit` bytes of it; b"" if there is nothing now.

        Raises:
            Gone: it was too slow, or the tape ended; says from where it can go on.
        """
        if self._gone is not None:
            raise self._gone
        if self._backlog:
            return self._take_past(limit)
        fanout = self._fanout
        while self.place.entry < fanout.end and 0 < fanout.entry(self.place.entry).revision <= self._start:
            self.place = Place(self.place.entry + 1)  # resumed from a replica that was ahead
        if self.place.entry >= fanout.end:
            return b""
        piece = fanout.piece(self._wanted, self.place, limit)
        self.place, self.told = piece.place, max(self.told, piece.told)
        return piece.data

    def close(self) -> None:
        self._fanout.leave(self)

    def cut(self, why: str, *, is_resumable: bool) -> None:
        self._gone = self._gone or _gone(why, self.told if is_resumable else None)

    def _take_past(self, limit: int) -> bytes:
        found: list[bytes] = []
        size = looked = 0
        while self._backlog and size < limit and looked < MOST_OF_THE_PAST:
            revision = self._backlog[0]
            looked += 1
            parts = self._fanout.past(revision, self._wanted.sight)
            if parts is None:
                self.close()
                self.cut(f"revision {revision} was removed from the journal before it was read", is_resumable=False)
                break
            while self._part < len(parts) and size < limit:
                part = parts[self._part]
                self._part += 1
                if self._wanted.takes(part.kind, part.network):
                    found.append(part.data)
                    size += len(part.data)
            if self._part >= len(parts):
                self._backlog.popleft()
                self._part, self.told = 0, max(self.told, revision)
        return b"".join(found)


def _gone(why: str, told: int | None) -> Gone:
    if told is None:
        fix = "list again and continue from the list's revision"
        return Gone(f"the position cannot be resumed: {why}", fix=fix)
    fix = f"continue from revision {told} (Last-Event-ID), or list again and continue from the list's revision"
    return Gone(f"the stream ends after revision {told}: {why}", fix=fix, context={"revision": told})
