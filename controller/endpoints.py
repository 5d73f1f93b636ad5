"""The use cases of endpoints: create one or many, find, change and delete.

An endpoint, its addresses and its place on the host are one commit, so there is never a part of one. What was chosen is
kept from others while the commit is on its way; who still loses a race chooses again. Never moves an endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

from backends.store import Revision
from controller.creation import Creation, Outcome
from controller.endpoint_changes import EndpointChanges
from controller.endpoint_patching import EndpointPatch
from controller.network_rules import require_active
from controller.networks import Networks
from controller.outcomes import store_errors_told
from controller.parsing import parse_address
from controller.ports import PortBook
from controller.release import Release, require_version
from controller.requests import Caller, EndpointRequest
from controller.security.host_calls import (
    require_own_endpoint,
    require_own_places,
    without_others_rest,
    without_others_rest_in,
)
from controller.security.hosts import of_host
from controller.security.participation import takes_part
from controller.security.principal import Principal
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import AmbiguousName, KvnetError, NotFound
from kvnet.model import Endpoint, Network, Versioned
from kvnet.rules import IDENTIFIER, shown


class Endpoints:
    def __init__(
        self,
        state: State,
        writer: Writer,
        ports: PortBook,
        networks: Networks,
        release: Release,
        rng: random.Random,
    ) -> None:
        self._state = state
        self._writer = writer
        self._ports = ports
        self._networks = networks
        self._release = release
        self._rng = rng
        self._changes = EndpointChanges(state, writer, ports, release, rng)

    async def create(self, network: str, request: EndpointRequest, caller: Caller) -> Versioned[Endpoint]:
        """Claim one address per family of the network. With a client's id, repeating it is harmless.

        Raises:
            Invalid, NotSupported: the request itself.
            NotFound: the network or the host.
            Forbidden: a host asks for another.
            AddressTaken, AddressesExhausted, IdTaken, NetworkDeleting: the state of the world.
            PortTaken, PortsExhausted, BlockTaken, BlocksExhausted, HostsApart: as well.
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
            Forbidden: a host asks for another; nothing was tried.
            StoreUnavailable, StoreBroken
        """
        require_own_places(caller.principal, (request.host for request in requests))
        with store_errors_told():
            target = await self._networks.fresh(network)
            require_active(target.value)
            if of_host(caller.principal) is not None:
                requests = [without_others_rest(one, self._state.claims_of(target.value.id)) for one in requests]
                if any(one.mac is not None for one in requests):
                    await self._hear_of_all(target.value.id)
            return await Creation(self._state, self._writer, self._ports, target, caller, self._rng).run(requests)

    async def _hear_of_all(self, network_id: str) -> None:
        """Who may be hostile must not be given a MAC of an endpoint that this replica has not heard of yet."""
        there = await self._writer.store.list(keys.endpoints(network_id))
        await self._state.reached(max((entry.version for entry in there.entries), default=0), self._state.endpoints)

    def get(self, network: str, id_or_name: str, named_on: str = "") -> Versioned[Endpoint]:
        """`named_on`: a name stands for those of this host only.

        Raises:
            NotFound
            AmbiguousName: a name that several have; lists their ids.
        """
        target = self._networks.get(network).value
        found = self._state.endpoints_of(target.id).get(id_or_name)
        if found is not None:
            return found
        named = self._state.endpoints_named(target.id, id_or_name)
        if named_on:
            named = [one for one in named if one.value.host == named_on]
        if not named:
            raise NotFound(
                f"network {target.name!r} has no endpoint {shown(id_or_name)}",
                fix=f"'kvnet endpoint ls --network {target.name}' shows them",
            )
        if len(named) > 1:
            raise _ambiguous(target, named)
        return named[0]

    async def update(
        self, network: str, id_or_name: str, patch: EndpointPatch, caller: Caller, if_version: int | None = None
    ) -> Versioned[Endpoint]:
        """Repeating it changes nothing: the same version is the answer.

        Raises:
            NotFound, AmbiguousName, PreconditionFailed, Forbidden
            Immutable: names every field that cannot change, and why.
            Invalid, NotSupported: what it would become is no endpoint, or not one of this network.
            AddressTaken, BlockTaken, PortTaken, PortsExhausted: what others have.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found = await self._fresh(network, id_or_name, caller)
            target = await self._networks.fresh(found.value.network)
            if of_host(caller.principal) is not None:
                patch = without_others_rest_in(patch, found.value.host, self._state.claims_of(target.value.id))
            return await self._changes.change(target, found, patch, caller, if_version)

    async def delete(
        self, network: str, id_or_name: str, caller: Caller, if_version: int | None = None
    ) -> tuple[str, Revision]:
        """Release it; its addresses rest for the cool-down, so that no stale packet meets a new owner.

        The network's id, and the revision that removed it.

        Raises:
            NotFound, AmbiguousName, PreconditionFailed, Forbidden
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found = await self._fresh(network, id_or_name, caller)
            require_version(found, if_version)
            (outcome,) = await self._release.release([found], caller, only_as_seen=if_version is not None)
            if isinstance(outcome, Exception):
                raise outcome
            await self._state.reached(outcome, self._state.endpoints, self._state.addresses)
            if found.value.ports:
                await self._state.reached(outcome, self._state.ports)
            return found.value.network, outcome

    async def _fresh(self, network: str, id_or_name: str, caller: Caller) -> Versioned[Endpoint]:
        """As `get`, but looks into the store before it says that there is none: another replica may be ahead.

        Of a host who asks, names stand for its own endpoints only.
        """
        if (asking := of_host(caller.principal)) is not None:
            return await self._fresh_of_host(asking, network, id_or_name, caller)
        target = await self._networks.fresh(network)
        return await self._stored_too(target.value, id_or_name, caller)

    async def _fresh_of_host(
        self, asking: Principal, network: str, id_or_name: str, caller: Caller
    ) -> Versioned[Endpoint]:
        """Where it does not take part there is nothing, in the same words, whatever is there."""
        is_in, found = False, None
        with suppress(NotFound):
            target = (await self._networks.fresh(network)).value
            is_in = takes_part(self._state, asking.host, target.id)
            found = await self._stored_too(target, id_or_name, caller)
        if found is None or (found.value.host != asking.host and not is_in):
            raise NotFound(f"host {asking.host} has no endpoint {shown(id_or_name)} in network {shown(network)}")
        require_own_endpoint(asking, found.value)
        return found

    async def _stored_too(self, target: Network, id_or_name: str, caller: Caller) -> Versioned[Endpoint]:
        asking = of_host(caller.principal)
        try:
            return self.get(target.id, id_or_name, asking.host if asking is not None else "")
        except NotFound:
            entry = None
            if IDENTIFIER.match(id_or_name):
                entry = await self._writer.store.get(keys.endpoint(target.id, id_or_name))
            if entry is None:
                raise
            return Versioned(codec.decode(Endpoint, entry.value), entry.version)

    def list(
        self, network: str | None = None, host: str | None = None, address: str | None = None
    ) -> tuple[Versioned[Endpoint], ...]:
        """Those that match everything that is given, by network, name and id.

        Raises:
            NotFound: the network.
            Invalid: the address.
        """
        of = None if network is None else self._networks.get(network).value.id
        wanted = None if address is None else parse_address(address, "/address")
        if host is None or of is not None:
            found = self._state.endpoints_in_order(of)
        else:
            found = sorted(self._state.endpoints_on(host), key=lambda e: (e.value.network, e.value.name, e.value.id))
        if host is None and wanted is None:
            return tuple(found)
        return tuple(
            e
            for e in found
            if (host is None or e.value.host == host) and (wanted is None or wanted in e.value.addresses)
        )


def _ambiguous(network: Network, named: Sequence[Versioned[Endpoint]]) -> AmbiguousName:
    ids = [e.value.id for e in named]
    name = named[0].value.name
    return AmbiguousName(
        f"{len(ids)} endpoints of network {network.name!r} have the name {name!r}: {', '.join(ids[:10])}",
        fix="use the id",
        context={"ids": ids},
    )
