"""Whether the store is the one this controller began with, and no older than what it has seen of it.

While it is not, nothing is written: a store that was wiped, or restored from an older backup, does not know what was
acknowledged since, and would give the same addresses away again. An operator's acceptance (`meta/accepted`) ends that
for all controllers and hosts at once. Asked before every commit, and every commit also checks the sentinel's version
in the store itself, because a mirror may learn of it a moment too late. Never decides that by itself, and never on the
ground that the store is merely away.
"""

from __future__ import annotations

from backends.store import Check, Unchanged
from controller.signal import Signal
from controller.state import State
from controller.views import Trouble
from kvnet import codec, keys, sentinel
from kvnet.errors import StoreTooNew, StoreWentBack
from kvnet.marks import Accepted, Cluster, Restoring
from kvnet.model import Observed, Versioned

WENT_BACK, WIPED, ANOTHER, TOO_NEW = "went-back", "wiped", "another-cluster", "too-new"
IS_BEHIND = "store-went-back"  # the condition that a worker reports

_SENTINEL = keys.CLUSTER.removeprefix(keys.META)
_ACCEPTED = keys.ACCEPTED.removeprefix(keys.META)
_RESTORING = keys.RESTORING.removeprefix(keys.META)

ACCEPT = "if the store is meant to be as it is now, say 'kvnet store accept'; if not, bring the right one back"
UPGRADE = "upgrade this controller; whoever is newer serves meanwhile"
RESTORE = (
    "bring it back with 'kvnet restore FILE'; everything goes on by itself then. "
    "If the cluster is to begin anew, stop all controllers and start them again"
)


class Standing:
    """`trouble` is None, and `fence` empty, until `begin`: a cluster that is not founded yet has no past."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._id = ""
        self._sentinel = 0
        self._fence: tuple[Check, ...] = ()
        self._accepted: Versioned[Accepted] | None = None
        self._fall: Trouble | None = None
        self._owed: set[str] = set()  # mirrors that have not listed since the last acceptance
        self._witnesses: dict[str, str] = {}
        self._changed = Signal()
        self._troubled: tuple[str, float] | None = None
        self._news = 0  # counts what may change the verdict
        self._judged: tuple[int, int, Trouble | None] | None = None
        state.on_list = self._on_list
        state.meta.listen(self._on_any_meta)

    async def begin(self, identity: Cluster, timeout_s: float) -> None:
        """From now on this is the cluster. The mirrors must be in step, but may not have heard of it yet.

        Raises:
            TimeoutError: they do not hear of it.
        """

        def is_known() -> bool:
            return self.sentinel is not None and self.sentinel.value.id == identity.id

        if not await self._changed.until(is_known, timeout_s):
            raise TimeoutError
        self._id = identity.id
        self._news += 1
        self._take_sentinel()
        self._accepted = self.acceptance
        self._state.meta.listen(self._on_meta)
        for host, observed in self._state.observed.items.items():
            self._on_observed(host, None, observed)
        self._state.observed.listen(self._on_observed)

    @property
    def acceptance(self) -> Versioned[Accepted] | None:
        """The last one, as it stands in the store."""
        found = self._state.meta.get(_ACCEPTED)
        return Versioned(found.value, found.version) if found and isinstance(found.value, Accepted) else None

    @property
    def sentinel(self) -> Versioned[Cluster] | None:
        found = self._state.meta.get(_SENTINEL)
        return Versioned(found.value, found.version) if found and isinstance(found.value, Cluster) else None

    @property
    def fence(self) -> tuple[Check, ...]:
        """What must hold in every commit."""
        return self._fence

    @property
    def trouble(self) -> Trouble | None:
        """Asked a few times in every change, so judged only when there is news."""
        heard = self._state.meta.mirror.revision
        known = self._judged
        if known is None or known[0] != heard or known[1] != self._news:
            known = self._judged = heard, self._news, self._judge()
        return known[2]

    def _judge(self) -> Trouble | None:
        found = self._found_trouble() if self._id else None
        if found is None:
            self._troubled = None
        elif self._troubled is None or self._troubled[0] != found.kind:
            self._troubled = found.kind, self._state.now()
        return found

    @property
    def troubled_since(self) -> float | None:
        """When this controller saw the present trouble first."""
        return self._troubled[1] if self.trouble is not None and self._troubled is not None else None

    def _found_trouble(self) -> Trouble | None:
        level = sentinel.level_of(self._state.meta.mirror.entries)
        if level > codec.SCHEMA:
            return Trouble(TOO_NEW, f"the cluster writes schema {level}, which this version does not know", UPGRADE)
        found = self.sentinel
        if found is None:
            return self._wiped()
        if found.value.id != self._id:
            return Trouble(
                ANOTHER,
                f"the store belongs to cluster {found.value.id} now, and this controller serves {self._id}",
                "bring the right store back; if this is the right one, restart the controllers, "
                "and the workers with --accept-store",
            )
        return self._fall or self._told_by_hosts()

    def require(self) -> None:
        """
        Raises:
            StoreWentBack, StoreTooNew: nothing may be written now.
        """
        trouble = self.trouble
        if trouble is not None:
            raise trouble.error()

    def overtaken(self) -> StoreWentBack | StoreTooNew:
        """For a commit whose fence did not hold: the store changed under it, and the mirrors do not know yet."""
        trouble = self.trouble or Trouble(WENT_BACK, f"{keys.CLUSTER} was written or removed by somebody else", ACCEPT)
        return trouble.error()

    async def until_accepted(self, acceptance: str, timeout_s: float) -> None:
        """Wait, for a bounded time, until this controller has taken it and read everything anew."""
        await self._changed.until(
            lambda: self._accepted is not None and self._accepted.value.id == acceptance and not self._owed, timeout_s
        )

    def _wiped(self) -> Trouble:
        restoring = self._state.meta.get(_RESTORING)
        if restoring is not None and isinstance(restoring.value, Restoring):
            return Trouble(WIPED, f"a backup of cluster {restoring.value.cluster} is being restored", "wait for it")
        return Trouble(
            WIPED, f"{keys.CLUSTER} is gone from the store: it was wiped, or part of it was removed", RESTORE
        )

    def _told_by_hosts(self) -> Trouble | None:
        if not self._witnesses:
            return None
        host = min(self._witnesses)
        more = f" (and {len(self._witnesses) - 1} more hosts)" if len(self._witnesses) > 1 else ""
        return Trouble(WENT_BACK, f"host {host} has seen a newer store: {self._witnesses[host]}{more}", ACCEPT)

    def _on_any_meta(self, *_: object) -> None:
        self._news += 1
        self._changed.ring()

    def _on_list(self, prefix: str, before: int, now: int) -> None:
        self._news += 1
        if now < before and prefix not in self._owed and self._id:
            self._fell(f"the store went back from revision {before} to {now}", before, now)
        self._owed.discard(prefix)
        self._changed.ring()

    def _fell(self, detail: str, before: int, now: int) -> None:
        self._news += 1
        known = self._fall
        if known is None or before > known.before:
            self._fall = Trouble(WENT_BACK, detail, ACCEPT, before, now)

    def _on_meta(self, name: str, _before: object, after: Versioned[object] | None) -> None:
        if after is None:
            return
        if name == _ACCEPTED and isinstance(after.value, Accepted):
            self._on_acceptance(Versioned(after.value, after.version))
        elif name == _SENTINEL and isinstance(after.value, Cluster) and after.value.id == self._id:
            accepted = self.acceptance
            if after.version != self._sentinel and (accepted is None or accepted.version < after.version):
                detail = f"{keys.CLUSTER} was written anew, at revision {after.version}: something restored the store"
                self._fell(detail, self._sentinel, after.version)
            self._take_sentinel()

    def _on_acceptance(self, accepted: Versioned[Accepted]) -> None:
        known = self._accepted
        if accepted.value.cluster != self._id or (known is not None and not is_newer(accepted.value, known.value)):
            return  # an older one comes back with an older store
        self._accepted = accepted
        self._fall = None
        self._news += 1
        self._take_sentinel()
        self._witnesses.clear()
        self._owed = {mirror.prefix for mirror in self._state.mirrors}
        self._state.relist()

    def _take_sentinel(self) -> None:
        found = self.sentinel
        if found is not None and found.value.id == self._id:
            self._sentinel = found.version
            self._fence = (Unchanged(keys.CLUSTER, found.version),)

    def _on_observed(self, host: str, _before: object, after: Versioned[Observed] | None) -> None:
        self._news += 1
        accepted_at = self._accepted.version if self._accepted is not None else 0
        told = "" if after is None or after.version <= accepted_at else _evidence(after)
        if told:
            self._witnesses[host] = told
        else:
            self._witnesses.pop(host, None)


def is_newer(one: Accepted, other: Accepted) -> bool:
    return one.id != other.id and one.accepted_at > other.accepted_at


def _evidence(observed: Versioned[Observed]) -> str:
    """What a host's report says against the store that holds it; "" if nothing."""
    networks = observed.value.networks.values()
    reached = max((seen.version for seen in networks), default=0)
    if reached > observed.version:
        return f"it applied revision {reached}, and told so at revision {observed.version}"
    told = (condition.detail for seen in networks for condition in seen.conditions if condition.code == IS_BEHIND)
    return next(told, "")
