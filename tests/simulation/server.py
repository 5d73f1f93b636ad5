"""The simulated store's servers: one linearizable map with sessions and watches, and whatever happens to it.

Every transaction that takes effect is told to the listeners at that moment, before any client hears of it: they judge
the invariants. Leases run on the servers' own clock. Knows nothing of networks between it and its clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from backends.memory import MemoryState
from backends.store import Change, Check, Conflict, Delete, Entry, Put, Revision, SessionLost, StoreError, Write

LOOK_S = 1.0
HISTORY = 2_000

# (revision, what each key was before, the writes)
Listener = Callable[[Revision, dict[str, Entry | None], Sequence[Write]], None]


class Watch:
    """What one watch has not been told yet; `on_news` is called when that becomes something."""

    def __init__(self, prefix: str, floor: Revision, on_news: Callable[[], None]) -> None:
        self.prefix = prefix
        self.floor = floor
        self.error: StoreError | None = None
        self.told = floor
        self.is_called = False  # it has been told that there is news, and has not looked yet
        self.wake = asyncio.Event()
        self.on_news = on_news
        self._pending: dict[str, Change] = {}

    def offer(self, revision: Revision, change: Change) -> None:
        if revision > self.floor:
            self._pending.pop(change.key, None)  # last: a batch is in the order of revisions
            self._pending[change.key] = change

    def take(self) -> tuple[Change, ...]:
        changes, self._pending = tuple(self._pending.values()), {}
        return changes

    def fail(self, error: StoreError) -> None:
        self.error = error
        self.wake.set()


class _Feed:
    """In place of `backends.feed.Feed`: whoever publishes here is the server, not a client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.position: Revision = 0

    def publish(self, revision: Revision, changes: Sequence[Change]) -> None:
        self.position = revision
        self._server.tell(revision, changes)


class _State(MemoryState):
    def __init__(self, server: Server) -> None:
        super().__init__(HISTORY)
        self.feed = _Feed(server)  # type: ignore[assignment]
        self._server = server

    def apply(self, writes: Sequence[Write]) -> Revision:
        before = {write.key: self.entries.get(write.key) for write in writes}
        revision = super().apply(writes)
        for listener in self._server.listeners:
            listener(revision, before, writes)
        return revision


class Server:
    """`is_up`: whether it answers at all. `clock`: monotonic. `slack_s`: how late a session may be ended at most."""

    def __init__(self, clock: Callable[[], float], slack_s: float) -> None:
        self.listeners: list[Listener] = []
        self.watches: dict[str, dict[Watch, None]] = {}
        self.is_up = True
        self.sessions = 0
        self.state = _State(self)
        self._clock = clock
        self._slack_s = slack_s
        self._leases: dict[str, tuple[float, float]] = {}  # session -> (ttl, until)

    def get(self, key: str) -> Entry | None:
        return self.state.entries.get(key)

    def list(self, prefix: str) -> tuple[Entry, ...]:
        entries = self.state.entries
        return tuple([entries[key] for key in sorted([key for key in entries if key.startswith(prefix)])])

    def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        """
        Raises:
            Conflict, SessionLost
        """
        for write in writes:
            if isinstance(write, Put) and write.session is not None and write.session not in self._leases:
                raise SessionLost(f"{write.key}: its session is gone")
        failing = self.state.failing(checks)
        if failing:
            raise Conflict(failing)
        return self.state.apply(writes) if writes else self.state.revision

    # sessions

    def grant(self, ttl_s: float) -> str:
        self.sessions += 1
        session = f"session-{self.sessions}"
        self._leases[session] = (ttl_s, self._clock() + ttl_s)
        return session

    def refresh(self, session: str, ttl_s: float) -> None:
        """
        Raises:
            SessionLost
        """
        if session not in self._leases:
            raise SessionLost("the session is gone")
        self._leases[session] = (ttl_s, self._clock() + ttl_s)

    def end(self, session: str) -> None:
        if self._leases.pop(session, None) is not None:
            held = sorted(key for key, holder in self.state.holders.items() if holder == session)
            if held:
                self.state.apply([Delete(key) for key in held])

    def expire(self, share: float) -> None:
        """End what is over; `share` of the slack is what it comes late."""
        now = self._clock()
        for session, (_, until) in list(self._leases.items()):
            if until + share * self._slack_s <= now:
                self.end(session)

    @property
    def held(self) -> list[str]:
        return sorted(self._leases)

    def extend(self) -> None:
        """A new leader of the servers gives everybody a whole TTL again."""
        now = self._clock()
        self._leases = {session: (ttl_s, now + ttl_s) for session, (ttl_s, _) in self._leases.items()}

    # watches

    def subscribe(self, watch: Watch) -> None:
        self.watches.setdefault(_folder(watch.prefix), {})[watch] = None

    def unsubscribe(self, watch: Watch) -> None:
        self.watches.get(_folder(watch.prefix), {}).pop(watch, None)

    def tell(self, revision: Revision, changes: Sequence[Change]) -> None:
        for change in changes:
            for folder in (_folder(change.key), ""):
                for watch in self.watches.get(folder, ()):
                    if change.key.startswith(watch.prefix):
                        watch.offer(revision, change)
                        if not watch.is_called:
                            watch.is_called = True
                            watch.on_news()

    def all_watches(self) -> list[Watch]:
        return [watch for folder in self.watches.values() for watch in folder]


def _folder(key: str) -> str:
    return key[: key.find("/") + 1]
