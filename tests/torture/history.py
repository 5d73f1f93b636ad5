"""What clients asked of a store and what they were told, as JSON lines: one line per invocation, one per response.

Every put of one commit carries the commit's number as its value (`recording` adds it to the real value and takes it off
again), so a value that is seen anywhere names the commit that wrote it. An invocation without a response, or with
`info`, has an unknown outcome: it may take effect at any time afterwards, or never. Times are nanoseconds of the
machine's monotonic clock. Never judges anything; `python -m tests.torture export` turns it into one register per key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, NamedTuple

Clock = Callable[[], int]


class Outcome(StrEnum):
    """As in porcupine's and Jepsen's histories: `fail` certainly had no effect, `info` nobody knows."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Demand(NamedTuple):
    """A check of a commit. `version` only means something for `unchanged`."""

    kind: str  # absent, unchanged, present
    key: str
    version: int = 0


class Seen(NamedTuple):
    """A key's state as somebody was told it: which commit wrote it, at which version; both 0 when the key is absent."""

    key: str
    writer: int
    version: int


@dataclass(slots=True)
class Commit:
    """`revision`: what an `ok` was told. `conflict`: the keys a refusal named. `bound`: puts that a session ends."""

    id: int
    process: str
    called: int
    demands: tuple[Demand, ...] = ()
    puts: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    outcome: Outcome = Outcome.INFO
    returned: int | None = None
    revision: int = 0
    conflict: tuple[str, ...] = ()


@dataclass(slots=True)
class Read:
    """One `get`. Only those that were answered are kept."""

    id: int
    process: str
    called: int
    returned: int
    seen: Seen


@dataclass(slots=True)
class Listing:
    """One `list`. `is_final`: taken when all was quiet, of everything, and as new as the last acknowledged commit."""

    id: int
    process: str
    prefix: str
    called: int
    returned: int
    revision: int
    seen: tuple[Seen, ...]
    is_final: bool = False


class Told(NamedTuple):
    """One batch of a watch."""

    time: int
    revision: int
    seen: tuple[Seen, ...]


@dataclass(slots=True)
class Stream:
    """One call of `watch`, and all that it delivered."""

    id: int
    process: str
    prefix: str
    after: int
    told: list[Told] = field(default_factory=list)
    is_open: bool = True


@dataclass(slots=True)
class History:
    """One round: everything between two moments at which nothing was under way."""

    commits: list[Commit] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    ownership: list[dict[str, Any]] = field(default_factory=list)


class Recorder:
    """Writes lines as they happen. `number` gives out the numbers of operations."""

    def __init__(self, file: IO[str], clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._number = 0
        self._encode = json.JSONEncoder(separators=(",", ":")).encode

    def number(self) -> int:
        self._number += 1
        return self._number

    def write(self, kind: str, f: str, op: int, process: str, **more: Any) -> int:
        """The time that was written."""
        now = self._clock()
        line = {"process": process, "type": kind, "f": f, "op": op, "time": now, **more}
        self._file.write(self._encode(line) + "\n")
        return now

    def flush(self) -> int:
        """The size of the file up to here."""
        self._file.flush()
        return self._file.tell()


def read_rounds(lines: Iterable[str], going_on: Iterable[Stream] = ()) -> Iterator[History]:
    """The rounds of a file; watches that go on over the end of a round appear again in the next.

    `going_on`: what `still_open` said of the round before these lines.
    """
    reader = _Reader(going_on)
    is_empty = True
    for text in lines:
        line = json.loads(text)
        is_empty = False
        if line["f"] == "barrier":
            yield reader.finished()
            is_empty = True
        else:
            reader.take(line)
    if not is_empty:
        yield reader.finished()


class _Reader:
    def __init__(self, going_on: Iterable[Stream]) -> None:
        self._history = History()
        self._commits: dict[int, Commit] = {}
        self._asked: dict[int, dict[str, Any]] = {}
        self._streams = {stream.id: stream for stream in going_on}

    def finished(self) -> History:
        history, self._history = self._history, History()
        history.commits = list(self._commits.values())
        history.streams += self._streams.values()
        self._commits, self._asked = {}, {}
        self._streams = {stream.id: stream for stream in still_open(history)}
        return history

    def take(self, line: dict[str, Any]) -> None:
        match line["f"]:
            case "commit":
                self._commit(line)
            case "watch":
                self._watch(line)
            case "get" | "list":
                self._read(line)
            case _:
                self._history.ownership.append(line)

    def _commit(self, line: dict[str, Any]) -> None:
        if line["type"] == "invoke":
            self._commits[line["op"]] = Commit(
                line["op"],
                line["process"],
                line["time"],
                tuple(Demand(*one) for one in line.get("checks", ())),
                tuple(line.get("puts", ())),
                tuple(line.get("deletes", ())),
                tuple(line.get("bound", ())),
            )
            return
        commit = self._commits.get(line["op"])
        if commit is None:
            return  # invoked before the barrier and unknown since: it stays unknown
        commit.outcome = Outcome(line["type"])
        commit.returned = None if commit.outcome is Outcome.INFO else line["time"]
        commit.revision = line.get("revision", 0)
        commit.conflict = tuple(line.get("conflict", ()))

    def _read(self, line: dict[str, Any]) -> None:
        if line["type"] == "invoke":
            self._asked[line["op"]] = line
            return
        asked = self._asked.pop(line["op"], None)
        if asked is None or line["type"] != "ok":
            return
        op, process, called, returned = line["op"], line["process"], asked["time"], line["time"]
        if line["f"] == "get":
            seen = Seen(asked["key"], line["value"] or 0, line["version"] or 0)
            self._history.reads.append(Read(op, process, called, returned, seen))
            return
        entries = tuple(Seen(*one) for one in line["entries"])
        self._history.listings.append(
            Listing(op, process, asked["prefix"], called, returned, line["revision"], entries, line.get("final", False))
        )

    def _watch(self, line: dict[str, Any]) -> None:
        op = line["op"]
        if line["type"] == "invoke":
            self._streams[op] = Stream(op, line["process"], line["prefix"], line["after"])
        elif op in self._streams and line["type"] == "told":
            seen = tuple(Seen(*one) for one in line["changes"])
            self._streams[op].told.append(Told(line["time"], line["revision"], seen))
        elif op in self._streams:
            stream = self._streams.pop(op)
            stream.is_open = False
            self._history.streams.append(stream)


def still_open(history: History) -> list[Stream]:
    """The watches that go on after this round, from where they are."""
    return [Stream(s.id, s.process, s.prefix, _covered(s)) for s in history.streams if s.is_open]


def _covered(stream: Stream) -> int:
    return max([stream.after, *(told.revision for told in stream.told)])
