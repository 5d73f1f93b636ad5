"""How an endpoint ends, whoever asks for it: its user, an operator for a dead host, or upkeep.

One commit per endpoint: itself and its place on the host go, its host ports are free, its addresses become tombstones
that rest until the cool-down is over. Checked against exactly what was seen: an endpoint that was replaced meanwhile is
left alone, an address that is not the endpoint's is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.committer import Transaction
from backends.store import Check, Conflict, Delete, Put, StoreError, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.outcomes import still_unknown, told
from controller.ports import PortBook, Swap, buckets_of
from controller.requests import Caller
from controller.state import State
from controller.writer import MAX_LOST_ANSWERS, Writer
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import HostInUse, KvnetError, NotFound, PreconditionFailed, TooMuchContention
from kvnet.model import Address, Endpoint, Versioned

Claims = Mapping[Address, Versioned[AddressClaim]]


@dataclass(slots=True)
class _Going:
    endpoint: Versioned[Endpoint]
    claims: Claims
    only_as_seen: bool
    lost_answers: int = 0
    result: int | KvnetError | None = None


class Release:
    def __init__(self, state: State, writer: Writer, ports: PortBook, cool_down_s: float) -> None:
        self._state = state
        self._writer = writer
        self._ports = ports
        self._cool_down_s = cool_down_s

    async def release(
        self,
        endpoints: Sequence[Versioned[Endpoint]],
        caller: Caller,
        kind: str = "endpoint.deleted",
        evidence: Sequence[Check] = (),
        *,
        only_as_seen: bool = False,
    ) -> list[int | KvnetError]:
        """The revision of each release, or why it did not happen; in the order given.

        `evidence`: what must still hold when it is committed; an endpoint for which it does not is left alone.
        `only_as_seen`: one that was changed meanwhile is left alone, too.

        Raises:
            StoreError: the store cannot be read.
        """
        going = [_Going(endpoint, await self.claims(endpoint.value), only_as_seen) for endpoint in endpoints]
        turns = self._writer.turns("the endpoint could not be deleted")
        while pending := [one for one in going if one.result is None]:
            try:
                await turns.next()
            except TooMuchContention as error:
                for one in pending:
                    one.result = error
                break
            while pending:
                pending = await self._wave(pending, caller, kind, evidence)
        return [_told_of(one) for one in going if one.result is not None]

    async def _wave(
        self, waiting: Sequence[_Going], caller: Caller, kind: str, evidence: Sequence[Check]
    ) -> list[_Going]:
        """Those that have to wait, because others of this process are changing the same host ports."""
        sent: list[tuple[_Going, Swap]] = []
        later: list[_Going] = []
        taken: set[str] = set()
        busy = self._ports.busy
        try:
            for one in waiting:
                buckets = buckets_of(one.endpoint.value)
                if not busy.take(buckets):
                    later.append(one)
                    continue
                taken |= buckets
                sent.append((one, self._ports.giving_back(one.endpoint.value)))
            transactions = [self._transaction(one, swap, caller, kind, evidence) for one, swap in sent]
            for (one, swap), outcome in zip(sent, await self._writer.commit_many(transactions), strict=True):
                if isinstance(outcome, int):
                    self._ports.note(outcome, swap.after)
                one.result = await self._settled(one, swap, outcome, {check.key for check in evidence})
        finally:
            busy.give_back(taken)
        if later and not sent:
            try:
                await busy.until_given_back()
            except TooMuchContention as error:
                for one in later:
                    one.result = error
                return []
        return later

    async def _settled(
        self, one: _Going, swap: Swap, outcome: int | StoreError, evidence: set[str]
    ) -> int | KvnetError | None:
        """As `_judged`. What nobody can look at now is told of this one: the others have their own outcomes."""
        if isinstance(outcome, Unknown):
            one.lost_answers += 1
        try:
            if swap.checks and not isinstance(outcome, int):
                await self._ports.look_again(self._writer.store, one.endpoint.value.host)
            return await self._judged(one, outcome, evidence)
        except StoreError as error:
            return told(error)

    async def _judged(self, one: _Going, outcome: int | StoreError, evidence: set[str]) -> int | KvnetError | None:
        """None: it goes again."""
        endpoint = one.endpoint.value
        if isinstance(outcome, int):
            return outcome
        if not isinstance(outcome, (Unknown, Conflict)):
            return told(outcome)
        if isinstance(outcome, Conflict) and not evidence.isdisjoint(outcome.keys):
            return HostInUse(f"host {endpoint.host!r} came back: {endpoint.name!r} stays")
        entry = await self._writer.store.get(keys.endpoint(endpoint.network, endpoint.id))
        stored = None if entry is None else Versioned(codec.decode(Endpoint, entry.value), entry.version)
        if stored is None or not is_same(stored.value, endpoint):
            if one.lost_answers:
                return one.endpoint.version
            return NotFound(f"endpoint {endpoint.name!r} was deleted meanwhile")
        if one.only_as_seen:
            try:
                require_version(stored, one.endpoint.version)
            except PreconditionFailed as error:
                return error
        if one.lost_answers >= MAX_LOST_ANSWERS:
            return told(outcome)
        one.endpoint = stored
        one.claims = await self._stored_claims(stored.value)
        return None

    async def claims(self, endpoint: Endpoint) -> Claims:
        """Those of its addresses, and perhaps others: from memory if the mirrors are at the same point, else stored."""
        known = self._state.claims_of(endpoint.network)
        if all(is_holder(endpoint, known.get(address)) for address in endpoint.addresses):
            return known
        return await self._stored_claims(endpoint)

    async def _stored_claims(self, endpoint: Endpoint) -> Claims:
        claims: dict[Address, Versioned[AddressClaim]] = {}
        for address in endpoint.addresses:
            entry = await self._writer.store.get(keys.address(endpoint.network, address))
            if entry is not None:
                claims[address] = Versioned(codec.decode(AddressClaim, entry.value), entry.version)
        return claims

    def _transaction(
        self, going: _Going, swap: Swap, caller: Caller, kind: str, evidence: Sequence[Check]
    ) -> Transaction:
        one = going.endpoint.value
        now = self._writer.now()
        key = keys.endpoint(one.network, one.id)
        checks: list[Check] = [Unchanged(key, going.endpoint.version), *evidence, *swap.checks]
        writes: list[Write] = [Delete(key), Delete(keys.local(one.host, one.id)), *swap.writes]
        for address in one.addresses:
            claim = going.claims.get(address)
            if claim is not None and is_holder(one, claim):
                address_key = keys.address(one.network, address)
                checks.append(Unchanged(address_key, claim.version))
                writes.append(self.laid_to_rest(address_key, one.id, one.host, now))
        return self._writer.transaction(checks, writes, caller, Changed(kind, key, codec.encode(one), None))

    def laid_to_rest(self, key: str, holder: str, host: str, now: float) -> Write:
        if self._cool_down_s <= 0:
            return Delete(key)
        tombstone = AddressClaim(ClaimKind.TOMBSTONE, holder, now, now + self._cool_down_s, host)
        return Put(key, codec.encode(tombstone))


def _told_of(one: _Going) -> int | KvnetError:
    assert one.result is not None
    return still_unknown(one.result) if one.lost_answers and isinstance(one.result, KvnetError) else one.result


def is_same(one: Endpoint, other: Endpoint) -> bool:
    """Whether it is this very endpoint, however it was changed, and not another one that got its id."""
    return (one.network, one.id, one.host, one.created_at) == (other.network, other.id, other.host, other.created_at)


def require_version(found: Versioned[Endpoint], wanted: int | None) -> None:
    """
    Raises:
        PreconditionFailed
    """
    if wanted is not None and found.version != wanted:
        raise PreconditionFailed(
            f"endpoint {found.value.name!r} has version {found.version}, not {wanted}",
            fix="look at it again and repeat with its version",
            context={"version": found.version},
        )


def is_holder(endpoint: Endpoint, claim: Versioned[AddressClaim] | None) -> bool:
    return claim is not None and claim.value.kind is ClaimKind.ENDPOINT and claim.value.holder == endpoint.id
