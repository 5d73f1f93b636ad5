"""Endpoints on their way into the store: rounds of choose, commit, and see who lost a race and why.

What was chosen is kept from others of this process while its commit is on the way, and let go whatever comes of it.
A lost race is run again with another choice; a lost answer is looked up first. Every outcome is one item's own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from backends.committer import Transaction
from backends.store import Conflict, StoreError, Unknown
from controller.claims import Claim, checks_of, claim_of, endpoint_of, fresh_ids, is_answered_by, transaction_of
from controller.ipam.segments import require_near
from controller.network_rules import require_active
from controller.outcomes import still_unknown, told
from controller.placing import Placing, see_winners
from controller.ports import PortBook
from controller.requests import Caller, EndpointRequest
from controller.security.scoping import owner_of
from controller.state import State
from controller.writer import MAX_LOST_ANSWERS, Writer
from kvnet import codec, keys
from kvnet.errors import AddressTaken, HostsApart, IdTaken, Invalid, KvnetError, NotFound, TooMuchContention
from kvnet.model import CrossSegment, Driver, Endpoint, Host, HostState, Network, Versioned
from kvnet.rules import shown

GIVE_NONE = "give none and kvnet makes one, or choose another"
Outcome = Versioned[Endpoint] | KvnetError


class Creation:
    """One call of `create_many`: rounds of choose, commit, see who lost and why."""

    def __init__(
        self,
        state: State,
        writer: Writer,
        ports: PortBook,
        network: Versioned[Network],
        caller: Caller,
        rng: random.Random,
    ) -> None:
        self._state = state
        self._writer = writer
        self._ports = ports
        self._busy = ports.busy
        self._network = network
        self._caller = caller
        self._rng = rng
        self._ids = fresh_ids(rng)
        self._placing = Placing(state, ports, network.value, rng)
        self._results: dict[int, Outcome] = {}
        self._hosts: dict[str, Versioned[Host]] = {}
        self._near: set[str] = set()
        self._macs: dict[str, str] | None = None

    async def run(self, requests: Sequence[EndpointRequest]) -> list[Outcome]:
        pending: dict[int, Claim] = {}
        for i, request in enumerate(requests):
            try:
                claim = claim_of(request, self._ids, self._rng)
                if request.host not in self._hosts:
                    await self._require_host(request.host)
                    self._require_near(request.host)
                if (known := self._state.endpoints_of(self._network.value.id).get(claim.id)) is not None:
                    self._results[i] = self._answer(claim, known)
                else:
                    if request.mac is not None:
                        self._require_free_mac(claim)
                    pending[i] = claim
            except KvnetError as error:
                self._results[i] = error
        who, quota = self._caller.principal, self._state.quotas.endpoints
        most = None if who is None else who.limits.endpoints
        with quota.coming(owner_of(who), len(pending), most) as room:
            for i in list(pending)[room:]:
                del pending[i]
                self._results[i] = quota.exceeded(who, most)
            try:
                await self._in_rounds(pending)
                await self._until_shown(pending)
            finally:
                # Also of those that are there: another attempt may have made them, and what came and went is not shown.
                self._placing.let_go(pending.values())
        return [self._results[i] for i in range(len(requests))]

    async def _until_shown(self, claims: Mapping[int, Claim]) -> None:
        """Each table up to the last commit that wrote to it: of others it hears later."""
        latest = with_ports = with_blocks = 0
        for i, result in self._results.items():
            if isinstance(result, Versioned):
                latest = max(latest, result.version)
                claim = claims.get(i)
                if claim is not None and claim.wishes:
                    with_ports = max(with_ports, result.version)
                if claim is not None and any(use.is_written for use in claim.uses):
                    with_blocks = max(with_blocks, result.version)
        await self._state.reached(latest, self._state.endpoints, self._state.addresses)
        await self._state.reached(with_ports, self._state.ports)
        await self._state.reached(with_blocks, self._state.host_blocks)

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
                for i, claim in pending.items():
                    self._refuse_or_answer(i, claim, error)
                return
            pending = await self._round(pending, attempt)

    async def _round(self, pending: dict[int, Claim], attempt: int) -> dict[int, Claim]:
        """Those that lost a race and go again."""
        again: dict[int, Claim] = {}
        waiting = pending
        while waiting:
            waiting = await self._wave(waiting, attempt, again)
        return again

    async def _wave(self, waiting: dict[int, Claim], attempt: int, again: dict[int, Claim]) -> dict[int, Claim]:
        """Those that have to wait until others of this process are done. What goes together has one time."""
        sent: list[int] = []
        transactions: list[Transaction] = []
        later: dict[int, Claim] = {}
        now = self._writer.now()
        fixed = {name: checks_of(self._network, host) for name, host in self._hosts.items()}
        try:
            for i, claim in waiting.items():
                try:
                    if not self._placing.choose(claim, attempt, now):
                        later[i] = claim
                        continue
                    endpoint = endpoint_of(claim, self._network.value.id, now, owner_of(self._caller.principal))
                except KvnetError as error:
                    self._refuse_or_answer(i, claim, error)
                    continue
                sent.append(i)
                transactions.append(transaction_of(claim, endpoint, fixed[endpoint.host], self._caller))
                self._expect(claim)
            outcomes = await self._writer.commit_many(transactions)
            for i, outcome in zip(sent, outcomes, strict=True):
                await self._settle(i, waiting[i], outcome, again)
        finally:
            self._placing.end_turns(waiting.values())
        if later and not sent:
            if self._busy.is_idle:  # whoever is in the way has no turn that could end: a race like any other
                again.update(later)
                return {}
            await self._wait_for_turn(later)
        return {i: claim for i, claim in later.items() if i not in self._results}

    async def _settle(self, i: int, claim: Claim, outcome: int | StoreError, again: dict[int, Claim]) -> None:
        if isinstance(outcome, int) and claim.endpoint is not None:
            self._results[i] = Versioned(claim.endpoint, outcome)
            if claim.turns:
                self._placing.note(claim, outcome)
            return
        if isinstance(outcome, Unknown):
            claim.lost_answers += 1
        result = await self._judge(claim, outcome)
        if result is None:
            self._placing.let_go([claim])  # it chooses anew, after a pause in which others need not wait for it
            again[i] = claim
        else:
            self._refuse_or_answer(i, claim, result)

    def _refuse_or_answer(self, i: int, claim: Claim, result: Outcome) -> None:
        is_in_doubt = claim.lost_answers and isinstance(result, KvnetError)
        self._results[i] = still_unknown(result) if is_in_doubt and isinstance(result, KvnetError) else result

    async def _wait_for_turn(self, later: dict[int, Claim]) -> None:
        try:
            await self._busy.until_given_back()
        except TooMuchContention as error:
            for i, claim in later.items():
                self._refuse_or_answer(i, claim, error)

    def _expect(self, claim: Claim) -> None:
        if claim.endpoint is not None and claim.address_claim is not None:
            put, _, *addresses = claim.written
            self._state.endpoints.expect(put.key, put.value, claim.endpoint)
            for put in addresses:
                self._state.addresses.expect(put.key, put.value, claim.address_claim)

    async def _judge(self, claim: Claim, outcome: int | StoreError) -> Outcome | None:
        """The final outcome of what failed, or None: it goes again."""
        match outcome:
            case Conflict():
                return await self._after_conflict(claim, outcome)
            case Unknown():
                return await self._after_lost_answer(claim, outcome)
            case StoreError():
                return told(outcome)
        return None

    async def _after_lost_answer(self, claim: Claim, lost: Unknown) -> Outcome | None:
        try:
            stored = await self._stored(claim)
            if claim.wishes:
                await self._ports.look_again(self._writer.store, claim.request.host)
        except StoreError:  # nobody can look now; the others of this request have their own outcomes
            return told(lost)
        if stored is not None:
            return self._answer(claim, stored)
        return None if claim.lost_answers < MAX_LOST_ANSWERS else told(lost)

    async def _after_conflict(self, claim: Claim, conflict: Conflict) -> Outcome | None:
        network_id = self._network.value.id
        try:
            if keys.endpoint(network_id, claim.id) in conflict.keys:
                stored = await self._stored(claim)
                return None if stored is None else self._answer(claim, stored)
            if keys.network(network_id) in conflict.keys:
                self._network = await self._network_again()
                await self._state.reached(self._network.version, self._state.networks)
                self._placing.let_go([claim])
                self._placing.look_at(self._network.value)
            if keys.host(claim.request.host) in conflict.keys:
                host = self._hosts[claim.request.host] = await self._host_again(claim.request.host)
                _require_staying(host.value)
            if any(key.startswith(keys.PORTS) for key in conflict.keys):
                await self._ports.look_again(self._writer.store, claim.request.host)
            if keys.local(claim.request.host, claim.id) in conflict.keys:
                raise IdTaken(
                    f"host {claim.request.host!r} has an endpoint {claim.id!r} in another network",
                    fix="choose another id, or leave it out",
                )
            await see_winners(self._state, self._writer.store, conflict.keys)
        except KvnetError as error:
            return error
        return None

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

    def _require_near(self, name: str) -> None:
        """In a routed network without tunnels every host must reach every other without a router.

        Raises:
            HostsApart
        """
        network = self._network.value
        if network.driver is not Driver.ROUTED or network.cross_segment is not CrossSegment.REFUSE:
            return
        there = {block.value.host for block in self._state.blocks_of(network.id).values()}
        there.update(self._state.hosts_of(network.id), self._near)
        known = (self._hosts.get(other) or self._state.hosts.get(other) for other in sorted(there - {name}))
        try:
            require_near(network.name, self._hosts[name].value, (other.value for other in known if other is not None))
        except HostsApart:
            del self._hosts[name]  # the next one for it is refused as well
            raise
        self._near.add(name)

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
