"""Endpoints on their way into the store: rounds of choose, commit, and see who lost a race and why.

What was chosen is kept from others of this process while its commit is on the way, and let go whatever comes of it.
A lost race is run again with another choice; a lost answer is looked up first. Every outcome is one item's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from backends.store import Conflict, StoreError, Unknown
from controller.claims import Claim, checks_of, claim_of, endpoint_of, fresh_ids, is_answered_by, transaction_of
from controller.networks import require_active
from controller.outcomes import told
from controller.parsing import shown
from controller.requests import Caller, EndpointRequest
from controller.state import State
from controller.writer import MAX_LOST_ANSWERS, Writer
from kvnet import codec, keys
from kvnet.errors import AddressTaken, IdTaken, Invalid, KvnetError, NotFound, TooMuchContention
from kvnet.model import Endpoint, Host, HostState, Network, Versioned

MAX_SPREAD = 4096
GIVE_NONE = "give none and kvnet makes one, or choose another"
Outcome = Versioned[Endpoint] | KvnetError


class Creation:
    """One call of `create_many`: rounds of choose, commit, see who lost and why."""

    def __init__(
        self, state: State, writer: Writer, network: Versioned[Network], caller: Caller, rng: random.Random
    ) -> None:
        self._state = state
        self._writer = writer
        self._network = network
        self._caller = caller
        self._rng = rng
        self._ids = fresh_ids(rng)
        self._space = state.space(network.value)
        self._results: dict[int, Outcome] = {}
        self._hosts: dict[str, Versioned[Host]] = {}
        self._macs: dict[str, str] | None = None

    async def run(self, requests: Sequence[EndpointRequest]) -> list[Outcome]:
        pending: dict[int, Claim] = {}
        for i, request in enumerate(requests):
            try:
                claim = claim_of(request, self._ids, self._rng)
                if request.host not in self._hosts:
                    await self._require_host(request.host)
                if (known := self._state.endpoints_of(self._network.value.id).get(claim.id)) is not None:
                    self._results[i] = self._answer(claim, known)
                else:
                    if request.mac is not None:
                        self._require_free_mac(claim)
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

    def _require_free_mac(self, claim: Claim) -> None:
        """Of a MAC that was asked for. Two who ask at the same moment may both get it; the datapath copes with that.

        Raises:
            Invalid, AddressTaken
        """
        network = self._network.value
        if claim.mac == network.gateway_mac:
            raise Invalid.field("/mac", f"{claim.mac} is the gateway's MAC of network {network.name}", GIVE_NONE)
        if self._macs is None:
            self._macs = {e.value.mac: e.value.id for e in self._state.endpoints_of(network.id).values()}
        holder = self._macs.setdefault(claim.mac, claim.id)
        if holder != claim.id:
            raise AddressTaken(f"{claim.mac} is the MAC of endpoint {holder} of network {network.name}", fix=GIVE_NONE)

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
        """Those that lost a race and go again. What goes together has one time."""
        sent, transactions = [], []
        now = self._writer.now()
        fixed = {name: checks_of(self._network, host) for name, host in self._hosts.items()}
        for i, claim in pending.items():
            try:
                self._choose(claim, attempt, now)
                endpoint = endpoint_of(claim, self._network.value.id, now)
            except KvnetError as error:
                self._results[i] = error
                continue
            sent.append(i)
            transactions.append(transaction_of(claim, endpoint, fixed[endpoint.host], self._caller))
            self._expect(claim)
        again = {}
        outcomes = await self._writer.commit_many(transactions)
        for i, outcome in zip(sent, outcomes, strict=True):
            claim = pending[i]
            if isinstance(outcome, int) and claim.endpoint is not None:
                self._results[i] = Versioned(claim.endpoint, outcome)
                continue
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

    def _choose(self, claim: Claim, attempt: int, now: float) -> None:
        self._let_go([claim])
        skip = self._rng.randrange(MAX_SPREAD) if attempt else 0
        for family, address in claim.wanted.items():
            claim.chosen.append(self._space.claim(address, now, pointer="/address" if family == 4 else "/address6"))
        for family in self._space.families:
            if family not in claim.wanted:
                claim.chosen.append(self._space.choose(family, now, skip=skip))

    def _let_go(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            for candidate in claim.chosen:
                self._space.let_go(candidate.address)
            claim.chosen.clear()

    async def _judge(self, claim: Claim, outcome: int | StoreError) -> Outcome | None:
        """The final outcome of what failed, or None: it goes again."""
        match outcome:
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
        known = self._state.hosts.get(name)
        found = known if known is not None else await self._host_again(name)
        _require_staying(found.value)
        self._hosts[name] = found

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
