"""The use cases of reservations: a named address of a network that no endpoint is ever given.

Names are unique within a network, ordered by a guard of their own. Reservations that are part of a network's
specification are shown too; they live and die with it.
"""

from __future__ import annotations

from backends.store import Absent, Conflict, Delete, Put, Unchanged, Unknown
from controller.guards import Guard
from controller.ipam.addresses import Candidate
from controller.journal import Changed
from controller.network_rules import no_network, require_active
from controller.networks import Networks
from controller.outcomes import store_errors_told
from controller.parsing import parse_address, require_no_address
from controller.requests import Caller, ReservationRequest
from controller.state import State
from controller.views import Reservation
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import Conflicting, NameTaken, NotFound
from kvnet.model import Address, Network, Versioned
from kvnet.rules import require_name, shown


class Reservations:
    def __init__(self, state: State, writer: Writer, networks: Networks, guard: Guard) -> None:
        self._state = state
        self._writer = writer
        self._networks = networks
        self._guard = guard

    async def create(self, network: str, request: ReservationRequest, caller: Caller) -> Reservation:
        """Take an address out of automatic choice: the wanted one, or the next free one. Repeating it is harmless.

        Raises:
            Invalid, NotFound
            NameTaken, AddressTaken, AddressesExhausted, NetworkDeleting
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        require_name(request.name, "/name")
        require_no_address(request.name, "/name")
        wanted = None if request.address is None else parse_address(request.address, "/address")
        with store_errors_told():
            turns = self._writer.turns(f"reservation {request.name!r} could not be made")
            while True:
                target = await self._fresh(network, await turns.next())
                require_active(target.value)
                try:
                    async with self._guard.held():
                        made = await self._try(target, request.name, wanted, caller)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(made.version, self._state.addresses)
                return made

    async def _fresh(self, network: str, attempt: int) -> Versioned[Network]:
        found = await self._networks.fresh(network)
        stored = found if attempt == 0 else await self._networks.find(found.value.id)
        if stored is None:
            raise no_network(network)
        return stored

    async def _try(self, target: Versioned[Network], name: str, wanted: Address | None, caller: Caller) -> Reservation:
        await self._guard.ready()
        network = target.value
        known = next((r for r in self._of(network) if r.name == name), None)
        if known is not None:
            if wanted is None or wanted == known.address:
                return known
            raise NameTaken(
                f"{known.address} of network {network.name!r} is reserved as {name!r} already",
                fix="choose another name, or release that one first",
            )
        space, now = self._state.space(network), self._writer.now()
        candidate = space.choose(space.families[0], now) if wanted is None else space.claim(wanted, now)
        revision = None
        try:
            with self._guard.deciding():
                revision = await self._commit(target, name, candidate, now, caller)
        finally:
            if revision is None:
                space.let_go(candidate.address)
        self._guard.won(revision)
        return Reservation(network.id, name, candidate.address, now, revision)

    async def _commit(
        self, target: Versioned[Network], name: str, candidate: Candidate, now: float, caller: Caller
    ) -> int:
        network = target.value
        key = keys.address(network.id, candidate.address)
        data = codec.encode(AddressClaim(ClaimKind.RESERVATION, name, now))
        free = Absent(key) if candidate.version is None else Unchanged(key, candidate.version)
        return await self._writer.commit(
            [self._guard.check, Unchanged(keys.network(network.id), target.version), free],
            [self._guard.write, Put(key, data)],
            caller,
            Changed("reservation.created", key, None, data),
        )

    async def delete(self, network: str, name_or_address: str, caller: Caller) -> None:
        """
        Raises:
            NotFound
            Conflicting: it is part of the network's specification.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            target = (await self._networks.fresh(network)).value
            turns = self._writer.turns(f"reservation {shown(name_or_address)} could not be released")
            while True:
                await turns.next()
                found = self._named(target, name_or_address)
                key = keys.address(target.id, found.address)
                before = codec.encode(AddressClaim(ClaimKind.RESERVATION, found.name, found.since))
                change = Changed("reservation.deleted", key, before, None)
                try:
                    revision = await self._writer.commit([Unchanged(key, found.version)], [Delete(key)], caller, change)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    entry = await self._writer.store.get(key)
                    await self._state.reached(entry.version if entry else 0, self._state.addresses)
                    continue
                await self._state.reached(revision, self._state.addresses)
                return

    def _named(self, network: Network, name_or_address: str) -> Reservation:
        found = next((r for r in self._of(network) if name_or_address in (r.name, str(r.address))), None)
        if found is None:
            raise NotFound(
                f"network {network.name!r} has no reservation {shown(name_or_address)}",
                fix=f"'kvnet ipam show {network.name}' shows them",
            )
        if found.fixed:
            raise Conflicting(
                f"{found.name!r} ({found.address}) is part of the specification of network {network.name!r}",
                fix="it goes with the network",
            )
        return found

    def _of(self, network: Network) -> list[Reservation]:
        fixed = [
            Reservation(network.id, name, address, network.created_at, 0, fixed=True)
            for subnet in network.subnets
            for name, address in subnet.reserved.items()
        ]
        made = [
            Reservation(network.id, claim.value.holder, address, claim.value.since, claim.version)
            for address, claim in self._state.claims_of(network.id).items()
            if claim.value.kind is ClaimKind.RESERVATION
        ]
        return [*fixed, *made]

    def list(self, network: str) -> tuple[Reservation, ...]:
        """Those of a network, by name.

        Raises:
            NotFound
        """
        return tuple(sorted(self._of(self._networks.get(network).value), key=lambda r: r.name))
