"""The use cases of hosts: what is known of each, and how one leaves for good.

A host is there as long as its record is, alive as long as its session's key is. Its endpoints stay while it is away:
a partition must not move an address. Only `delete` with force, and upkeep after a long absence, release them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from backends.store import Absent, Check, Conflict, Delete, Put, Revision, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.parsing import shown
from controller.release import Release
from controller.requests import Caller
from controller.state import State
from controller.views import HostStatus
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import HostInUse, NotFound
from kvnet.model import NAME, Endpoint, Host, Versioned

MAX_NAMED = 20


class Hosts:
    def __init__(self, state: State, writer: Writer, release: Release) -> None:
        self._state = state
        self._writer = writer
        self._release = release

    def get(self, name: str) -> HostStatus:
        """Raises: NotFound."""
        host = self._state.hosts.get(name)
        if host is None:
            raise NotFound(f"there is no host {shown(name)}", fix="'kvnet host ls' shows the hosts")
        return self._status(host)

    async def delete(self, name: str, caller: Caller, force: bool = False) -> None:
        """Forget a host. With `force` its endpoints are released first-hand, each with its own journal entry.

        Raises:
            NotFound
            HostInUse: it is alive, or carries endpoints and `force` is not given; nothing was changed.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            for attempt in itertools.count():
                await self._writer.turn(attempt, f"host {name!r} could not be removed")
                revision = await self._try_to_delete(name, caller, force)
                if revision is not None:
                    await self._state.reached(revision, self._state.hosts, self._state.endpoints)
                    return

    async def _try_to_delete(self, name: str, caller: Caller, force: bool) -> Revision | None:
        """The record goes first: from then on no endpoint can come in, and the store shows all that are there."""
        entry = await self._writer.store.get(keys.host(name)) if NAME.match(name) else None
        if entry is None:
            raise NotFound(f"there is no host {shown(name)}", fix="'kvnet host ls' shows the hosts")
        if await self._writer.store.get(keys.alive(name)) is not None:
            raise HostInUse(
                f"host {name!r} is alive", fix="stop 'kvnet worker' there first", context={"host": name, "alive": True}
            )
        carried = [e.value for e in self._state.endpoints_on(name)]
        if carried and not force:
            raise _carries(name, carried)
        key = keys.host(name)
        gone: list[Write] = [Delete(key), Delete(keys.inventory(name)), Delete(keys.observed(name))]
        checks: list[Check] = [Unchanged(key, entry.version), Absent(keys.alive(name))]
        try:
            revision = await self._writer.commit(checks, gone, caller, Changed("host.deleted", key, entry.value, None))
        except (Conflict, Unknown):
            return None
        left = await self.carried_by(name)
        if left and not force:
            kept = Changed("host.kept", key, None, entry.value)
            await self._writer.commit([Absent(key)], [Put(key, entry.value)], caller, kept)
            raise _carries(name, [e.value for e in left])
        return max([revision, *await self.release_all(left, caller)])

    async def carried_by(self, name: str) -> list[Versioned[Endpoint]]:
        """The endpoints of a host, from the store itself."""
        local = await self._writer.store.list(keys.local_of(name))
        found = []
        for entry in local.entries:
            key = keys.endpoint(entry.value.decode(), keys.parse_local(entry.key).endpoint)
            stored = await self._writer.store.get(key)
            if stored is not None:
                found.append(Versioned(codec.decode(Endpoint, stored.value), stored.version))
        return found

    async def release_all(
        self, endpoints: Sequence[Versioned[Endpoint]], caller: Caller, evidence: Sequence[Check] = ()
    ) -> list[Revision]:
        """`evidence` must still hold in the commits.

        Raises:
            KvnetError: the first that failed; not for endpoints that are gone, or whose evidence no longer holds.
        """
        revisions = []
        for outcome in await self._release.release(endpoints, caller, "endpoint.released", evidence):
            if isinstance(outcome, int):
                revisions.append(outcome)
            elif not isinstance(outcome, NotFound | HostInUse):
                raise outcome
        return revisions

    def _status(self, host: Versioned[Host]) -> HostStatus:
        name = host.value.name
        observed, inventory = self._state.observed.get(name), self._state.inventory.get(name)
        networks = self._state.networks_on(name)
        seen = observed.value.networks if observed else {}
        latest = {network: self._state.latest_change(network) for network in networks}
        lag = {
            network: max(0, version - (seen[network].version if network in seen else 0))
            for network, version in latest.items()
        }
        named = (self._state.networks.get(network) for network in networks)
        return HostStatus(
            host=host.value,
            version=host.version,
            alive=self._state.alive.get(name) is not None,
            last_seen=self._state.last_seen(name),
            inventory=inventory.value if inventory else None,
            observed=observed.value if observed else None,
            endpoints=sum(networks.values()),
            networks=tuple(sorted(network.value.name for network in named if network)),
            lag=lag,
        )

    def list(self) -> tuple[HostStatus, ...]:
        """All of them, by name."""
        return tuple(self._status(host) for _, host in sorted(self._state.hosts.items.items()))


def _carries(name: str, endpoints: Sequence[Endpoint]) -> HostInUse:
    names = sorted(e.name for e in endpoints)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return HostInUse(
        f"host {name!r} carries {len(names)} endpoint{'s' * (len(names) != 1)}: {', '.join(names[:MAX_NAMED])}{more}",
        fix="remove them, or release them all with --force if the host will not come back",
        context={"host": name, "endpoints": [{"id": e.id, "name": e.name} for e in endpoints[:MAX_NAMED]]},
    )
