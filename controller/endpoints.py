"""The use cases of endpoints: create one or many, find, delete, and tell whether every host knows them yet.

An endpoint, its addresses and its place on the host are one commit, so there is never a part of one. What was chosen is
kept from others while the commit is on its way; who still loses a race chooses again. Never moves an address.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from backends.store import Conflict, StoreError, Unknown
from controller.claims import Claim, claim_of, endpoint_of, is_answered_by, transaction_of
from controller.networks import Networks, require_active
from controller.outcomes import store_errors_told, told
from controller.parsing import parse_address, shown
from controller.release import Release
from controller.requests import Caller, EndpointRequest
from controller.state import State
from controller.views import Convergence
from controller.writer import MAX_LOST_ANSWERS, Writer
from kvnet import codec, keys
from kvnet.errors import (
    AmbiguousName,
    IdTaken,
    KvnetError,
    NotFound,
    PreconditionFailed,
    TooMuchContention,
)
from kvnet.model import IDENTIFIER, Endpoint, Host, HostState, Network, Versioned

MAX_SPREAD = 64
Outcome = Versioned[Endpoint] | KvnetError


class Endpoints:
    def __init__(self, state: State, writer: Writer, networks: Networks, release: Release, rng: random.Random) -> None:
        self._state = state
        self._writer = writer
        self._networks = networks
        self._release = release
        self._rng = rng

    async def create(self, network: str, request: EndpointRequest, caller: Caller) -> Versioned[Endpoint]:
        """Claim one address per family of the network. With a client's id, repeating it is harmless.

        Raises:
            Invalid, NotSupported: the request itself.
            NotFound: the network or the host.
            AddressTaken, AddressesExhausted, IdTaken, NetworkDeleting: the state of the world.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        (outcome,) = await self.create_many(network, [request], caller)
        if isinstance(outcome, KvnetError):
            raise outcome
        return outcome

    async def create_many(self, network: str, requests: Sequence[EndpointRequest], caller: Caller) -> list[Outcome]:
        """As `create` for each on its own terms; the outcomes in the order given.

        Raises:
            NotFound, NetworkDeleting: the network; nothing was tried.
            StoreUnavailable, StoreBroken
        """
        with store_errors_told():
            target = await self._networks.fresh(network)
            require_active(target.value)
            return await _Creation(self._state, self._writer, target, caller, self._rng).run(requests)

    def get(self, network: str, id_or_name: str) -> Versioned[Endpoint]:
        """
        Raises:
            NotFound
            AmbiguousName: a name that several have; lists their ids.
        """
        target = self._networks.get(network).value
        found = self._state.endpoints_of(target.id).get(id_or_name)
        if found is not None:
            return found
        named = self._state.endpoints_named(target.id, id_or_name)
        if not named:
            raise NotFound(
                f"network {target.name!r} has no endpoint {shown(id_or_name)}",
                fix=f"'kvnet endpoint ls --network {target.name}' shows them",
            )
        if len(named) > 1:
            raise _ambiguous(target, named)
        return named[0]

    async def delete(self, network: str, id_or_name: str, caller: Caller, if_version: int | None = None) -> None:
        """Release it; its addresses rest for the cool-down, so that no stale packet meets a new owner.

        Raises:
            NotFound, AmbiguousName, PreconditionFailed
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found = await self._fresh(network, id_or_name)
            if if_version is not None and found.version != if_version:
                raise PreconditionFailed(
                    f"endpoint {found.value.name!r} has version {found.version}, not {if_version}",
                    fix="look at it again and repeat with its version",
                    context={"version": found.version},
                )
            (outcome,) = await self._release.release([found], caller)
            if isinstance(outcome, Exception):
                raise outcome
            await self._state.reached(outcome, self._state.endpoints, self._state.addresses)

    async def _fresh(self, network: str, id_or_name: str) -> Versioned[Endpoint]:
        """As `get`, but looks into the store before it says that there is none: another replica may be ahead."""
        target = await self._networks.fresh(network)
        try:
            return self.get(target.value.id, id_or_name)
        except NotFound:
            entry = None
            if IDENTIFIER.match(id_or_name):
                entry = await self._writer.store.get(keys.endpoint(target.value.id, id_or_name))
            if entry is None:
                raise
            return Versioned(codec.decode(Endpoint, entry.value), entry.version)

    def convergence(self, endpoint: Versioned[Endpoint]) -> Convergence:
        """Which hosts of the network have not applied it yet. Hosts that are away are not waited for: they fence
        themselves and look at everything when they return."""
        waiting = []
        network = endpoint.value.network
        for host in self._state.hosts_of(network):
            observed = self._state.observed.get(host)
            seen = observed.value.networks.get(network) if observed else None
            if self._state.alive.get(host) and (seen is None or seen.version < endpoint.version):
                waiting.append(host)
        return Convergence(converged=not waiting, waiting_for=tuple(sorted(waiting)))

    async def until_applied(self, network: str, id_or_name: str, timeout_s: float) -> Convergence:
        """Wait until every living host of the network has applied the endpoint; says who has not when time is up.

        Raises:
            NotFound, AmbiguousName
        """
        endpoint = self.get(network, id_or_name)
        await self._state.progress.until(lambda: self.convergence(endpoint).converged, timeout_s)
        return self.convergence(endpoint)

    def list(
        self, network: str | None = None, host: str | None = None, address: str | None = None
    ) -> tuple[Versioned[Endpoint], ...]:
        """Those that match everything that is given, by network, name and id.

        Raises:
            NotFound: the network.
            Invalid: the address.
        """
        found: Iterator[Versioned[Endpoint]] = iter(self._state.endpoints.items.values())
        if network is not None:
            found = iter(self._state.endpoints_of(self._networks.get(network).value.id).values())
        elif host is not None:
            found = self._state.endpoints_on(host)
        wanted = None if address is None else parse_address(address, "/address")
        matching = (
            e
            for e in found
            if (host is None or e.value.host == host) and (wanted is None or wanted in e.value.addresses)
        )
        return tuple(sorted(matching, key=lambda e: (e.value.network, e.value.name, e.value.id)))


class _Creation:
    """One call of `create_many`: rounds of choose, commit, see who lost and why."""

    def __init__(
        self, state: State, writer: Writer, network: Versioned[Network], caller: Caller, rng: random.Random
    ) -> None:
        self._state = state
        self._writer = writer
        self._network = network
        self._caller = caller
        self._rng = rng
        self._space = state.space(network.value)
        self._results: dict[int, Outcome] = {}
        self._hosts: dict[str, Versioned[Host]] = {}

    async def run(self, requests: Sequence[EndpointRequest]) -> list[Outcome]:
        pending: dict[int, Claim] = {}
        for i, request in enumerate(requests):
            try:
                claim = claim_of(request, self._rng)
                await self._require_host(request.host)
                if (known := self._state.endpoints_of(self._network.value.id).get(claim.id)) is not None:
                    self._results[i] = self._answer(claim, known)
                else:
                    pending[i] = claim
            except KvnetError as error:
                self._results[i] = error
        try:
            await self._in_rounds(pending)
        finally:
            self._let_go(claim for i, claim in pending.items() if not isinstance(self._results.get(i), Versioned))
        latest = max((r.version for r in self._results.values() if isinstance(r, Versioned)), default=0)
        await self._state.reached(latest, self._state.endpoints, self._state.addresses)
        return [self._results[i] for i in range(len(requests))]

    async def _in_rounds(self, claims: dict[int, Claim]) -> None:
        pending = dict(claims)
        turns = self._writer.turns(f"an endpoint in network {self._network.value.name!r}")
        while pending:
            try:
                attempt = await turns.next()
            except TooMuchContention as error:
                self._results.update(dict.fromkeys(pending, error))
                return
            pending = await self._round(pending, attempt)

    async def _round(self, pending: dict[int, Claim], attempt: int) -> dict[int, Claim]:
        """Those that lost a race and go again."""
        sent, transactions = [], []
        for i, claim in pending.items():
            try:
                self._choose(claim, attempt)
                endpoint = endpoint_of(claim, self._network.value.id, self._writer.now())
            except KvnetError as error:
                self._results[i] = error
                continue
            sent.append(i)
            host = self._hosts[endpoint.host]
            transactions.append(transaction_of(claim, endpoint, self._network, host.version, self._caller))
            self._expect(claim)
        again = {}
        outcomes = await self._writer.commit_many(transactions)
        for i, outcome in zip(sent, outcomes, strict=True):
            claim = pending[i]
            result = await self._judge(claim, outcome)
            if result is None:
                again[i] = claim
            else:
                self._results[i] = result
        return again

    def _expect(self, claim: Claim) -> None:
        if claim.endpoint is not None and claim.address_claim is not None:
            put, _, *addresses = claim.written
            self._state.endpoints.expect(put.key, put.value, claim.endpoint)
            for put in addresses:
                self._state.addresses.expect(put.key, put.value, claim.address_claim)

    def _choose(self, claim: Claim, attempt: int) -> None:
        self._let_go([claim])
        now = self._writer.now()
        skip = self._rng.randrange(min(MAX_SPREAD, 4 << attempt)) if attempt else 0
        for family, address in claim.wanted.items():
            claim.chosen.append(self._space.claim(address, now, pointer="/address" if family == 4 else "/address6"))
        for family in self._space.families:
            if family not in claim.wanted:
                claim.chosen.append(self._space.choose(family, now, skip=skip))

    def _let_go(self, claims: Iterator[Claim] | Sequence[Claim]) -> None:
        for claim in claims:
            for candidate in claim.chosen:
                self._space.let_go(candidate.address)
            claim.chosen.clear()

    async def _judge(self, claim: Claim, outcome: int | StoreError) -> Outcome | None:
        """The final outcome, or None: it goes again."""
        match outcome:
            case int() if claim.endpoint is not None:
                return Versioned(claim.endpoint, outcome)
            case Conflict():
                return await self._after_conflict(claim, outcome)
            case Unknown():
                stored = await self._stored(claim)
                if stored is not None:
                    return self._answer(claim, stored)
                claim.lost_answers += 1
                return None if claim.lost_answers < MAX_LOST_ANSWERS else told(outcome)
            case StoreError():
                return told(outcome)
        return None

    async def _after_conflict(self, claim: Claim, conflict: Conflict) -> Outcome | None:
        network_id = self._network.value.id
        try:
            if keys.endpoint(network_id, claim.id) in conflict.keys:
                stored = await self._stored(claim)
                return None if stored is None else self._answer(claim, stored)
            if keys.network(network_id) in conflict.keys:
                self._network = await self._network_again()
            if keys.host(claim.request.host) in conflict.keys:
                host = self._hosts[claim.request.host] = await self._host_again(claim.request.host)
                _require_staying(host.value)
            if keys.local(claim.request.host, claim.id) in conflict.keys:
                raise IdTaken(
                    f"host {claim.request.host!r} has an endpoint {claim.id!r} in another network",
                    fix="choose another id, or leave it out",
                )
            await self._catch_up(conflict)
        except KvnetError as error:
            return error
        return None

    async def _catch_up(self, conflict: Conflict) -> None:
        """See what the winner wrote before choosing again."""
        for key in conflict.keys:
            if key.startswith(keys.ADDRESSES):
                entry = await self._writer.store.get(key)
                if entry is not None:
                    await self._state.reached(entry.version, self._state.addresses)

    async def _network_again(self) -> Versioned[Network]:
        entry = await self._writer.store.get(keys.network(self._network.value.id))
        if entry is None:
            raise NotFound(f"network {self._network.value.name!r} was deleted meanwhile")
        network = codec.decode(Network, entry.value)
        require_active(network)
        return Versioned(network, entry.version)

    async def _require_host(self, name: str) -> None:
        if name not in self._hosts:
            known = self._state.hosts.get(name)
            self._hosts[name] = known if known is not None else await self._host_again(name)
            _require_staying(self._hosts[name].value)

    async def _host_again(self, name: str) -> Versioned[Host]:
        entry = await self._writer.store.get(keys.host(name))
        if entry is None:
            raise _no_host(name)
        return Versioned(codec.decode(Host, entry.value), entry.version)

    async def _stored(self, claim: Claim) -> Versioned[Endpoint] | None:
        entry = await self._writer.store.get(keys.endpoint(self._network.value.id, claim.id))
        return None if entry is None else Versioned(codec.decode(Endpoint, entry.value), entry.version)

    def _answer(self, claim: Claim, existing: Versioned[Endpoint]) -> Outcome:
        if is_answered_by(claim, self._network.value, existing.value):
            return existing
        return IdTaken(
            f"endpoint {claim.id!r} exists and is another one: {existing.value.name!r} on {existing.value.host!r}",
            fix="leave the id out, or repeat exactly the request that created it",
            context={"id": claim.id, "name": existing.value.name, "host": existing.value.host},
        )


def _require_staying(host: Host) -> None:
    if host.state is not HostState.ACTIVE:
        raise NotFound(f"host {host.name!r} is being removed", fix="start 'kvnet worker' there again if it is to stay")


def _no_host(name: str) -> NotFound:
    return NotFound(
        f"there is no host {shown(name)}",
        fix="start 'kvnet worker' there; 'kvnet host ls' shows the hosts",
    )


def _ambiguous(network: Network, named: Sequence[Versioned[Endpoint]]) -> AmbiguousName:
    ids = [e.value.id for e in named]
    name = named[0].value.name
    return AmbiguousName(
        f"{len(ids)} endpoints of network {network.name!r} have the name {name!r}: {', '.join(ids[:10])}",
        fix="use the id",
        context={"ids": ids},
    )
