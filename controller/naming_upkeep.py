"""Ends what a network's making left behind when it was cut short: subnets still held, networks still without a name.

Both are normally over in milliseconds. They must have been there unchanged for their whole time by this controller's
own clock, which nobody can set: how far off the clock was that wrote a moment into them does not matter. A host that is
down cannot bring a name, and its Docker may have the network on disk: it has the whole time again when it is back. Each
commit checks the version that was seen, so a network that gets its name at the last moment keeps it.
"""

from __future__ import annotations

from backends.committer import Transaction
from backends.store import Conflict, Delete, Unchanged
from controller.holds import HOLD_S
from controller.journal import Changed
from controller.removal import Removal
from controller.requests import Caller
from controller.settings import Settings
from controller.state import State
from controller.suspicions import Suspicions
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import SubnetClaim
from kvnet.errors import NetworkInUse, NotFound, PreconditionFailed
from kvnet.model import Network, NetworkState
from kvnet.moments import moment

NAMING_S = 60.0
MAX_PER_SWEEP = 1_000


class NamingUpkeep:
    """Only the elected controller calls it, and only while the store is believed and the mirrors are in step."""

    def __init__(self, state: State, writer: Writer, removal: Removal, settings: Settings, actor: str) -> None:
        self._state = state
        self._writer = writer
        self._removal = removal
        self._settings = settings
        self._actor = actor
        self._held: Suspicions[tuple[str, int]] = Suspicions()
        self._nameless: Suspicions[tuple[str, int]] = Suspicions()

    def forget(self) -> None:
        self._held.forget()
        self._nameless.forget()

    async def end_holds(self) -> int:
        """How many subnets are free again.

        Raises:
            StoreError
        """
        held = {
            (key, claim.version): claim.value
            for key, claim in self._state.subnets.items.items()
            if claim.value.hold is not None
        }
        over = self._held.confirmed(held, self._settings.clock.monotonic(), HOLD_S)[:MAX_PER_SWEEP]
        outcomes = await self._writer.commit_many([self._ending(*one, held[one]) for one in over])
        return sum(isinstance(outcome, int) for outcome in outcomes)

    async def remove_nameless(self) -> int:
        """How many networks went because their name did not come.

        Raises:
            KvnetError, StoreError
        """
        nameless = {
            (network.value.id, network.version): network
            for network in self._state.networks.items.values()
            if network.value.state is NetworkState.NAMING and not self._is_awaited(network.value)
        }
        removed = 0
        now = self._settings.clock.monotonic()
        for one in self._nameless.confirmed(nameless, now, NAMING_S)[:MAX_PER_SWEEP]:
            since = self._writer.now() - now + self._nameless.since(one)
            caller = Caller(self._actor, "", f"without a name since {moment(since)}")
            try:
                await self._removal.remove(nameless[one], caller, if_version=one[1])
            except (Conflict, NetworkInUse, NotFound, PreconditionFailed):  # somebody was faster
                continue
            removed += 1
        return removed

    def _is_awaited(self, network: Network) -> bool:
        """Its host is down, and not for so long that it loses its endpoints as well."""
        host = network.docker.host if network.docker is not None else ""
        if self._state.hosts.get(host) is None or self._state.alive.get(host) is not None:
            return False
        since = self._state.down_since(host)
        return since is None or self._writer.now() - since < self._settings.dead_host_after_s

    def _ending(self, name: str, version: int, claim: SubnetClaim) -> Transaction:
        key = keys.SUBNETS + name
        change = Changed("hold.expired", key, codec.encode(claim), None)
        caller = Caller(self._actor, "", "no network was made with it")
        return self._writer.transaction((Unchanged(key, version),), (Delete(key),), caller, change)
