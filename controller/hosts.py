"""The use cases of hosts: what is known of each, and how one leaves for good.

A host is there as long as its record is, alive as long as its session's key is. Its endpoints stay while it is away:
a partition must not move an address. Only `delete` with force, and upkeep after a long absence, release them. Removal
is in two steps, as a network's: marked first, so that nothing can come in, and finished by upkeep if it is cut short.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from backends.store import Absent, Check, Conflict, Delete, Put, Revision, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.meant import meant
from controller.outcomes import store_errors_told
from controller.release import Release
from controller.requests import Caller
from controller.security.tokens import public
from controller.state import State
from controller.views import HostStatus
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import HostInUse, NotFound, StoreBroken
from kvnet.model import Block, Endpoint, Host, HostState, Versioned
from kvnet.rules import NAME, shown
from kvnet.security import Role, Token

MAX_NAMED = 20
GIVEN_BACK_PER_COMMIT = 20
TOKENS_PER_COMMIT = 20


class Hosts:
    def __init__(self, state: State, writer: Writer, release: Release) -> None:
        self._state = state
        self._writer = writer
        self._release = release

    def get(self, name: str) -> HostStatus:
        """Raises: NotFound."""
        host = self._state.hosts.get(name)
        if host is None:
            raise no_host(name, self._state.hosts.items)
        return self._status(host)

    async def delete(self, name: str, caller: Caller, force: bool = False) -> None:
        """Forget a host, and its credentials. With `force` its endpoints are released, each with its own journal entry.

        Raises:
            NotFound
            HostInUse: it is alive, or carries endpoints and `force` is not given; nothing was changed.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            turns = self._writer.turns(f"host {name!r} could not be removed")
            while True:
                await turns.next()
                try:
                    marked = await self._marked(name, HostState.EVICTED if force else HostState.LEAVING, caller)
                    revision = await self.finish(marked, caller)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(revision, self._state.hosts, self._state.endpoints)
                return

    async def _marked(self, name: str, state: HostState, caller: Caller) -> Versioned[Host]:
        """From here on no endpoint can come in, because its commit checks the host's version."""
        entry = await self._writer.store.get(keys.host(name)) if NAME.match(name) else None
        if entry is None:
            raise no_host(name, self._state.hosts.items)
        found = Versioned(codec.decode(Host, entry.value), entry.version)
        if await self._writer.store.get(keys.alive(name)) is not None:
            raise HostInUse(
                f"host {name!r} is alive", fix="stop 'kvnet worker' there first", context={"host": name, "alive": True}
            )
        carried = [e.value for e in self._state.endpoints_on(name)]
        if carried and state is HostState.LEAVING:
            raise _carries(name, carried)
        return found if found.value.state is state else await self._put(found, state, f"host.{state}", caller)

    async def finish(self, marked: Versioned[Host], caller: Caller) -> Revision:
        """Remove a marked host, with what it carries if it is evicted; make it active again if it must stay.

        Raises:
            HostInUse: it carries endpoints.
            StoreError: Conflict when it came back meanwhile.
        """
        host = marked.value
        key = keys.host(host.name)
        evidence: list[Check] = [Unchanged(key, marked.version), Absent(keys.alive(host.name))]
        left = await self.carried_by(host.name)
        if left and host.state is not HostState.EVICTED:
            await self._put(marked, HostState.ACTIVE, "host.kept", caller)
            raise _carries(host.name, [e.value for e in left])
        await self.release_all(left, caller, evidence)
        if await self.carried_by(host.name):
            raise Conflict([key])
        await self._give_back_all(host.name, evidence, caller)
        tokens = await self._tokens_of(host.name)
        while len(tokens) > TOKENS_PER_COMMIT:
            some, tokens = tokens[:TOKENS_PER_COMMIT], tokens[TOKENS_PER_COMMIT:]
            await self._writer.commit(evidence, _deletes(some), caller, *_ended(some))
        gone: list[Write] = [Delete(key), Delete(keys.inventory(host.name)), Delete(keys.observed(host.name))]
        gone += [Delete(keys.reclaim(host.name)), *_deletes(tokens)]
        changed = Changed("host.deleted", key, codec.encode(host), None)
        return await self._writer.commit(evidence, gone, caller, changed, *_ended(tokens))

    async def _tokens_of(self, name: str) -> list[Token]:
        """With a credential that is good, or one to join with, it would come back by itself."""
        found = []
        for entry in (await self._writer.store.list(keys.TOKENS)).entries:
            with suppress(StoreBroken):  # nobody gets in with such a one
                found.append(codec.decode(Token, entry.value))
        return [token for token in found if token.role in (Role.HOST, Role.JOIN) and token.host == name]

    async def _give_back_all(self, name: str, evidence: Sequence[Check], caller: Caller) -> None:
        """Blocks and ports that the store has for a host without endpoints; its addresses cool down on their own."""
        blocks = (await self._writer.store.list(keys.BLOCKS)).entries
        own = [e for e in blocks if codec.decode(Block, e.value).host == name]
        own += (await self._writer.store.list(keys.ports_of(name))).entries
        for i in range(0, len(own), GIVEN_BACK_PER_COMMIT):
            part = own[i : i + GIVEN_BACK_PER_COMMIT]
            checks = [*evidence, *(Unchanged(e.key, e.version) for e in part)]
            await self._writer.commit(checks, [Delete(e.key) for e in part], caller)

    async def _put(self, found: Versioned[Host], state: HostState, kind: str, caller: Caller) -> Versioned[Host]:
        after = replace(found.value, state=state)
        key, data = keys.host(after.name), codec.encode(after)
        checks: list[Check] = [Unchanged(key, found.version), Absent(keys.alive(after.name))]
        change = Changed(kind, key, codec.encode(found.value), data)
        return Versioned(after, await self._writer.commit(checks, [Put(key, data)], caller, change))

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
        others = (id_ for id_, told in seen.items() if told.version and self._state.networks.get(id_) is not None)
        latest = {network: self._state.latest_change(network) for network in (*networks, *others)}
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
            down_since=self._state.down_since(name),
            incarnation=self._state.incarnation(name),
            inventory=inventory.value if inventory else None,
            observed=observed.value if observed else None,
            endpoints=sum(networks.values()),
            networks=tuple(sorted(network.value.name for network in named if network)),
            lag=lag,
        )

    def list(self) -> tuple[HostStatus, ...]:
        """All of them, by name."""
        return tuple(self._status(host) for _, host in sorted(self._state.hosts.items.items()))


def no_host(name: str, known: Collection[str]) -> NotFound:
    return NotFound(f"there is no host {shown(name)}", fix=meant(name, known, "'kvnet host ls' shows the hosts"))


def _carries(name: str, endpoints: Sequence[Endpoint]) -> HostInUse:
    names = sorted(e.name for e in endpoints)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return HostInUse(
        f"host {name!r} carries {len(names)} endpoint{'s' * (len(names) != 1)}: {', '.join(names[:MAX_NAMED])}{more}",
        fix="remove them, or release them all with --force if the host will not come back",
        context={"host": name, "endpoints": [{"id": e.id, "name": e.name} for e in endpoints[:MAX_NAMED]]},
    )


def _deletes(tokens: Sequence[Token]) -> Sequence[Write]:
    return [Delete(keys.token(token.id)) for token in tokens]


def _ended(tokens: Sequence[Token]) -> Sequence[Changed]:
    return [Changed("token.deleted", keys.token(token.id), public(token), None) for token in tokens]
