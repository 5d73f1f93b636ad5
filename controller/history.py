"""What happened to one thing, or by one hand: its changes in the journal, the newest first.

Pure but for reading what is kept in memory. The journal is as long as it is bounded to be; what is older is not known,
and the answer says from which revision on it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.events import EventLog
from controller.views import Event
from kvnet import keys

AT_A_TIME = 8
_quoted = json.JSONEncoder(ensure_ascii=False).encode  # as the journal's bytes have it


@dataclass(frozen=True, slots=True)
class Subject:
    """What the changes are wanted of. All that is given must hold; nothing given: of everything.

    `networks`: ids and names that stand for one network. `endpoint`: its id, or its name. `address`: its text.
    `kind`: also the part before a dot. `since`, `until`: seconds since the epoch, the latter left out itself.
    """

    networks: tuple[str, ...] = ()
    endpoint: str = ""
    host: str = ""
    pool: str = ""
    address: str = ""
    actor: str = ""
    source: str = ""
    kind: str = ""
    request_id: str = ""
    since: float | None = None
    until: float | None = None

    def concerns(self, event: Event) -> bool:
        return self._is_by(event) and self._is_of(event)

    def _is_by(self, event: Event) -> bool:
        return (
            (not self.actor or event.actor == self.actor)
            and (not self.source or event.source == self.source or event.source.startswith(f"{self.source}: "))
            and (not self.request_id or event.request_id == self.request_id)
            and (not self.kind or event.kind == self.kind or event.kind.startswith(f"{self.kind}."))
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
        )

    def _is_of(self, event: Event) -> bool:
        known = [state for state in (event.before, event.after) if state is not None]
        return (
            (not self.networks or _is_of_network(event, known, self.networks))
            and (not self.endpoint or _is_of_endpoint(event, known, self.endpoint))
            and (not self.host or event.key == keys.host(self.host) or _has(known, "host", self.host))
            and (not self.pool or event.key == keys.pool(self.pool))
            and (not self.address or _is_of_address(event, known, self.address))
        )

    def words(self) -> list[tuple[bytes, ...]]:
        """Of each, one must be in the bytes of a commit that concerns it: what has none is never decoded."""
        named = (self.endpoint, self.host, self.pool, self.address, self.actor, self.request_id, self.kind)
        singles = [(_quoted(one)[1:-1],) for one in named if one]
        return [tuple(word.encode() for word in words) for words in (self.networks, *singles) if words]


async def changes(
    log: EventLog, subject: Subject, limit: int, show: Callable[[Event], Event | None] = lambda event: event
) -> list[Event]:
    """The newest `limit` of them, newest first. Lets others run meanwhile: a word that is everywhere finds much to read
    and perhaps nothing that is meant. `show`: each as it may be told, and what is meant is judged by that."""
    words, found = subject.words(), list[Event]()
    for looked, revision in enumerate(log.revisions(), 1):
        if log.mentions(revision, words):
            told = (show(event) for event in reversed(log.events_of(revision) or ()))
            found += [event for event in told if event is not None and subject.concerns(event)]
        if len(found) >= limit:
            break
        if not looked % AT_A_TIME:
            await asyncio.sleep(0)
    return found[:limit]


def _is_of_network(event: Event, known: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    if event.network in names:
        return True
    return event.key.startswith(keys.NETWORKS) and any(_has(known, "name", name) for name in names)


def _is_of_endpoint(event: Event, known: Sequence[Mapping[str, Any]], endpoint: str) -> bool:
    if not event.key.startswith(keys.ENDPOINTS):
        return False
    return event.key.endswith(f"/{endpoint}") or _has(known, "name", endpoint)


def _is_of_address(event: Event, known: Sequence[Mapping[str, Any]], address: str) -> bool:
    if event.key.startswith(keys.ADDRESSES):
        return event.key.endswith(f"/{address}")
    return any(address in state.get("addresses", ()) for state in known)


def _has(known: Sequence[Mapping[str, Any]], member: str, value: str) -> bool:
    return any(state.get(member) == value for state in known)
