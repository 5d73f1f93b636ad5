"""How an endpoint ends, whoever asks for it: its user, an operator for a dead host, or upkeep.

One commit per endpoint: itself and its place on the host go, its addresses become tombstones that rest until the
cool-down is over. Checked against exactly what was seen: an endpoint that changed meanwhile is looked at again, an
address that is not the endpoint's is never touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from backends.committer import Transaction
from backends.store import Check, Conflict, Delete, Put, StoreError, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.outcomes import told
from controller.requests import Caller
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import HostInUse, KvnetError, NotFound, TooMuchContention
from kvnet.model import Address, AddressClaim, ClaimKind, Endpoint, Versioned

Claims = Mapping[Address, Versioned[AddressClaim]]


class Release:
    def __init__(self, state: State, writer: Writer, cool_down_s: float) -> None:
        self._state = state
        self._writer = writer
        self._cool_down_s = cool_down_s

    async def release(
        self,
        endpoints: Sequence[Versioned[Endpoint]],
        caller: Caller,
        kind: str = "endpoint.deleted",
        evidence: Sequence[Check] = (),
    ) -> list[int | KvnetError]:
        """The revision of each release, or why it did not happen; in the order given.

        `evidence`: what must still hold when it is committed; an endpoint for which it does not is left alone.

        Raises:
            StoreError: the store cannot be read.
        """
        results: dict[int, int | KvnetError] = {}
        pending = {i: (e, self._state.claims_of(e.value.network)) for i, e in enumerate(endpoints)}
        for i, (endpoint, claims) in list(pending.items()):
            if not all(_is_holder(endpoint.value, claims.get(a)) for a in endpoint.value.addresses):
                looked = await self._look_again(endpoint.value)  # the mirrors are not at the same point
                if looked is not None:
                    pending[i] = looked
        unsure: set[int] = set()
        evidence_keys = {check.key for check in evidence}
        for attempt in itertools.count():
            if not pending:
                break
            try:
                await self._writer.turn(attempt, "the endpoint could not be deleted")
            except TooMuchContention as error:
                results.update(dict.fromkeys(pending, error))
                break
            transactions = [self._transaction(e, claims, caller, kind, evidence) for e, claims in pending.values()]
            outcomes = await self._writer.commit_many(transactions)
            again = {}
            for (i, (endpoint, _)), outcome in zip(pending.items(), outcomes, strict=True):
                if isinstance(outcome, Conflict) and not evidence_keys.isdisjoint(outcome.keys):
                    results[i] = HostInUse(f"host {endpoint.value.host!r} came back: {endpoint.value.name!r} stays")
                elif isinstance(outcome, Conflict | Unknown):
                    unsure |= {i} if isinstance(outcome, Unknown) else set()
                    looked = await self._look_again(endpoint.value)
                    if looked is not None:
                        again[i] = looked
                    else:
                        results[i] = self._gone(endpoint, i in unsure)
                else:
                    results[i] = told(outcome) if isinstance(outcome, StoreError) else outcome
            pending = again
        return [results[i] for i in range(len(endpoints))]

    def _gone(self, endpoint: Versioned[Endpoint], may_be_our_work: bool) -> int | KvnetError:
        if may_be_our_work:
            return endpoint.version
        return NotFound(f"endpoint {endpoint.value.name!r} was deleted meanwhile")

    async def _look_again(self, endpoint: Endpoint) -> tuple[Versioned[Endpoint], Claims] | None:
        """What the store has now; None if the endpoint is gone."""
        entry = await self._writer.store.get(keys.endpoint(endpoint.network, endpoint.id))
        if entry is None:
            return None
        stored = codec.decode(Endpoint, entry.value)
        claims: dict[Address, Versioned[AddressClaim]] = {}
        for address in stored.addresses:
            claimed = await self._writer.store.get(keys.address(stored.network, address))
            if claimed is not None:
                claims[address] = Versioned(codec.decode(AddressClaim, claimed.value), claimed.version)
        return Versioned(stored, entry.version), claims

    def _transaction(
        self, endpoint: Versioned[Endpoint], claims: Claims, caller: Caller, kind: str, evidence: Sequence[Check]
    ) -> Transaction:
        one = endpoint.value
        now = self._writer.now()
        key = keys.endpoint(one.network, one.id)
        checks: list[Check] = [Unchanged(key, endpoint.version), *evidence]
        writes: list[Write] = [Delete(key), Delete(keys.local(one.host, one.id))]
        for address in one.addresses:
            claim = claims.get(address)
            if claim is not None and _is_holder(one, claim):
                address_key = keys.address(one.network, address)
                checks.append(Unchanged(address_key, claim.version))
                writes.append(self.laid_to_rest(address_key, one.id, one.host, now))
        return self._writer.transaction(checks, writes, caller, Changed(kind, key, codec.encode(one), None))

    def laid_to_rest(self, key: str, holder: str, host: str, now: float) -> Write:
        if self._cool_down_s <= 0:
            return Delete(key)
        tombstone = AddressClaim(ClaimKind.TOMBSTONE, holder, now, now + self._cool_down_s, host)
        return Put(key, codec.encode(tombstone))


def _is_holder(endpoint: Endpoint, claim: Versioned[AddressClaim] | None) -> bool:
    return claim is not None and claim.value.kind is ClaimKind.ENDPOINT and claim.value.holder == endpoint.id
