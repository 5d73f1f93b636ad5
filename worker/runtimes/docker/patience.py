"""Waiting, within bounds, for what another part of the cluster is about to do: a name, a record, a controller.

A call of Docker's has a deadline, and every wait here is shorter. Says only whether it came; what that means is for the
caller to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kvnet.errors import ControllerUnreachable, KvnetError, NotFound
from kvnet.model import Network, NetworkState
from worker.ports import Backoff, Time
from worker.runtimes.docker.ports import Catalogue

NAMING_S = 3.0
# For a store, a controller or a session that is on its way: after a reboot Docker starts its containers only once.
PASSING_S = 5.0
PASSING = frozenset({"host-fenced", "store-unavailable", "controller-unreachable", "contention", "network-naming"})
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
T = TypeVar("T")


class Patience:
    def __init__(self, catalogue: Catalogue, time: Time) -> None:
        self._catalogue = catalogue
        self._time = time

    async def until(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """What `look` finds in the catalogue, as soon as it finds it; None when it did not come in time."""
        found = look()
        seen = 0
        try:
            async with asyncio.timeout(seconds):
                while found is None:
                    seen = await self._catalogue.changed(seen)
                    found = look()
        except TimeoutError:
            return look()
        return found

    async def network(self, id: str) -> Network:
        """
        Raises:
            NotFound: the store has none of that id.
            ControllerUnreachable: this host does not hear the store.
        """
        seconds = NAMING_S if self._catalogue.is_in_step else PASSING_S
        found = await self.until(lambda: self._catalogue.networks.get(id), seconds)
        if found is None and not self._catalogue.is_in_step:
            raise ControllerUnreachable(
                f"this host does not hear the store, so the network {id} is not known on it",
                fix="see 'kvnet status'; run the command again when that is well",
            )
        if found is None:
            raise NotFound(
                f"the network {id} is not known on this host", fix="see 'kvnet network ls' and 'kvnet status'"
            )
        return found.value

    async def named(self, id: str) -> None:
        """A network that was made a moment ago takes endpoints only under its name, which comes by itself."""
        await self.until(lambda: _no_longer_naming(self._catalogue, id), NAMING_S)

    async def through(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Again while it fails for what passes by itself."""
        until = self._time.monotonic() + PASSING_S
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                return await attempt()
            except KvnetError as error:
                if error.code not in PASSING or self._time.monotonic() >= until:
                    raise
            await self._time.sleep(pauses.next(self._time))


def _no_longer_naming(catalogue: Catalogue, id: str) -> bool | None:
    known = catalogue.networks.get(id)
    return None if known is not None and known.value.state is NetworkState.NAMING else True
