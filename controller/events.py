"""The journal as a stream: what changed, in the order it was committed, resumable by revision.

Built from the journal's mirror, so it tells what every replica did. Hosts coming and going, and how networks and hosts
are, is told too, but not in the journal: it cannot be replayed. Keeps nothing for those who listen: `fanout` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from backends.store import Change
from controller import journal
from controller.views import Event, HostSeen, NetworkSeen
from kvnet import codec, keys
from kvnet.errors import Gone, StoreBroken
from kvnet.model import Alive, Versioned
from kvnet.rules import NETWORK_ID

REMEMBERED_BATCHES = 64
LIVE_BYTES = 1024  # about what one costs that is not in the journal
_WITH_NETWORK = (keys.NETWORKS, keys.ENDPOINTS, keys.ADDRESSES, keys.BLOCKS)


# The revision of a commit that `events_of` has, or 0 and the events themselves; and how many bytes they are about.
OnEntry = Callable[[int, Sequence[Event] | None, int], None]
OnCut = Callable[[str], None]


class EventLog:
    """What is kept of the journal, and who hears of what is new. `audience`: how many listen in the end."""

    def __init__(self) -> None:
        self._kept: dict[int, bytes] = {}
        self._revision_of: dict[str, int] = {}
        self._decoded: dict[int, tuple[Event, ...]] = {}
        self._heard_by: list[tuple[OnEntry, OnCut]] = []
        self._floor = 0
        self.audience = 0
        self.dropped = 0  # listeners that did not read fast enough
        self.revision = 0

    def backlog(self, start: int | None = None) -> tuple[int, list[int]]:
        """Where to begin, and the revisions after it that are kept; without `start` at what happens from now on.

        Raises:
            Gone: `start` is older than what is kept.
        """
        if start is None:
            return self.revision, []
        if start < self._floor:
            raise _gone(f"revision {start} is older than what is kept (from {self._floor})", kept_from=self._floor)
        return start, sorted(kept for kept in self._kept if kept > start)

    def listen(self, on_entry: OnEntry, on_cut: OnCut) -> None:
        """`on_cut`: nothing that was told leads on from here."""
        self._heard_by.append((on_entry, on_cut))

    def on_change(self, changes: Sequence[Change]) -> None:
        """For the journal's mirror: also called with everything that is there at the start."""
        fresh: list[tuple[int, bytes]] = []
        for change in changes:
            if change.key == keys.JOURNAL_FLOOR:
                if change.entry is not None:
                    self.raise_floor(journal.floor(change.entry.value))
            elif change.entry is None:
                self._forget(change.key)
            elif self._revision_of.get(change.key) != change.entry.version:
                self._kept.pop(self._revision_of.get(change.key, 0), None)
                self._revision_of[change.key] = change.entry.version
                fresh.append((change.entry.version, change.entry.value))
        for revision, value in sorted(fresh):
            self._kept[revision] = value
            self.revision = max(self.revision, revision)
            for on_entry, _ in self._heard_by:
                on_entry(revision, None, len(value))

    def raise_floor(self, revision: int) -> None:
        """Everything up to `revision` may have been removed from the journal, by whichever replica."""
        self._floor = max(self._floor, revision)

    def went_back(self, revision: int) -> None:
        """The store did: what was told from above `revision` did not happen, and its numbers are given anew."""
        self._revision_of = {key: version for key, version in self._revision_of.items() if version <= revision}
        self._kept = {version: value for version, value in self._kept.items() if version <= revision}
        self._decoded.clear()
        self._floor = min(self._floor, revision)
        self.revision = min(self.revision, revision)
        self._cut(f"the store went back to revision {revision}")

    def tell_host(
        self, host: str, before: Versioned[Alive] | None, after: Versioned[Alive] | None, at: float, revision: int
    ) -> None:
        """A host came, went or came back as another incarnation: the journal does not have these."""
        self._tell(
            Event(
                revision=after.version if after else revision,
                kind="host.up" if after else "host.down",
                at=at,
                key=keys.alive(host),
                network="",
                actor=host,
                request_id="",
                source="session",
                before=codec.to_json(before.value) if before else None,
                after=codec.to_json(after.value) if after else None,
                resumable=False,
            )
        )

    def tell_status(self, kind: str, key: str, network: str, after: NetworkSeen | HostSeen, at: float) -> None:
        """How something is now: the journal does not have this either."""
        self._tell(Event(self.revision, kind, at, key, network, "", "", "status", None, after, resumable=False))

    def close(self) -> None:
        self._cut("the controller stops")

    def _tell(self, event: Event) -> None:
        for on_entry, _ in self._heard_by:
            on_entry(0, (event,), LIVE_BYTES)

    def _cut(self, why: str) -> None:
        for _, on_cut in self._heard_by:
            on_cut(why)

    def events_of(self, revision: int) -> tuple[Event, ...] | None:
        """None if it is no longer kept."""
        known = self._decoded.get(revision)
        if known is None:
            value = self._kept.get(revision)
            if value is None:
                return None
            if len(self._decoded) >= REMEMBERED_BATCHES:
                del self._decoded[next(iter(self._decoded))]
            known = self._decoded[revision] = _events(revision, value)
        return known

    def moment(self, revision: int) -> float | None:
        """When the commit of that revision was made; None if the journal does not have it (any more)."""
        value = self._kept.get(revision)
        return None if value is None else journal.moment(value)

    @property
    def floor(self) -> int:
        """Changes up to this revision may be missing."""
        return self._floor

    def revisions(self) -> list[int]:
        """Those that are kept, the newest first."""
        return sorted(self._kept, reverse=True)

    def mentions(self, revision: int, words: Sequence[Sequence[bytes]]) -> bool:
        """Whether its bytes have, of each of the alternatives, one; False of what is no longer kept."""
        value = self._kept.get(revision)
        if value is None:
            return False
        for (
            alternatives
        ) in words:  # asked of every event that is kept, for every host that wants to know who removed it
            for word in alternatives:
                if word in value:
                    break
            else:
                return False
        return True

    def labels_of(self, network: str) -> Mapping[str, str] | None:
        """The labels that a network had when the journal told of it last; None if it does not (any more)."""
        if not NETWORK_ID.match(network):
            return None
        word = keys.network(network).encode()
        for revision in self.revisions():
            if not self.mentions(revision, [(word,)]):
                continue
            for event in reversed(self.events_of(revision) or ()):
                state = event.after or event.before
                if event.key == keys.network(network) and isinstance(state, dict):
                    return dict(state.get("labels") or {})
        return None

    def _forget(self, key: str) -> None:
        revision = self._revision_of.pop(key, None)
        if revision is not None:
            self._kept.pop(revision, None)
            self.raise_floor(revision)


def _events(revision: int, value: bytes) -> tuple[Event, ...]:
    try:
        written = journal.entries(value)
    except StoreBroken:
        return ()
    flat = [(entry, change) for entry in written for change in entry.changes]
    return tuple(
        Event(
            revision=revision,
            kind=change.kind,
            at=entry.at,
            key=change.key,
            network=_network_of(change.key),
            actor=entry.actor,
            request_id=entry.request_id,
            source=entry.source,
            before=change.before,
            after=change.after,
            resumable=i == len(flat) - 1,
            claimed=entry.claimed,
        )
        for i, (entry, change) in enumerate(flat)
    )


def _network_of(key: str) -> str:
    return key.split("/", 2)[1] if key.startswith(_WITH_NETWORK) else ""


def _gone(why: str, **facts: int) -> Gone:
    fix = "list again and continue from the list's revision"
    return Gone(f"the position cannot be resumed: {why}", fix=fix, context=facts)
