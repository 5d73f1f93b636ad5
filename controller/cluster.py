"""The cluster as its use cases see it: opened on a store, kept in step, asked and told through its parts.

One instance per controller process; any number of them on one store. Holds no state that the store does not have.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from backends.store import Store
from controller.requests import Caller, EndpointRequest, NetworkRequest, PoolRequest, ReservationRequest
from controller.settings import Settings
from controller.views import (
    AddressHolder,
    Bookmark,
    CheckReport,
    ClusterStatus,
    Convergence,
    Event,
    HostStatus,
    NetworkUse,
    PoolStatus,
    Reservation,
    SubnetHolder,
    Utilisation,
)
from kvnet.errors import KvnetError
from kvnet.model import Address, Cidr, Endpoint, Network, Versioned


class Networks(Protocol):
    async def create(self, request: NetworkRequest, caller: Caller) -> Versioned[Network]: ...
    def get(self, name_or_id: str) -> Versioned[Network]: ...
    def list(self) -> list[Versioned[Network]]: ...
    def use(self, network_id: str) -> NetworkUse: ...
    async def delete(self, name_or_id: str, caller: Caller, if_version: int | None = None) -> None: ...
    async def prune(self, caller: Caller, dry_run: bool = False) -> list[Versioned[Network]]: ...


class Endpoints(Protocol):
    async def create(self, network: str, request: EndpointRequest, caller: Caller) -> Versioned[Endpoint]: ...
    async def create_many(
        self, network: str, requests: Sequence[EndpointRequest], caller: Caller
    ) -> list[Versioned[Endpoint] | KvnetError]: ...
    def get(self, network: str, id_or_name: str) -> Versioned[Endpoint]: ...
    def list(
        self, network: str | None = None, host: str | None = None, address: str | None = None
    ) -> list[Versioned[Endpoint]]: ...
    async def delete(self, network: str, id_or_name: str, caller: Caller, if_version: int | None = None) -> None: ...
    def convergence(self, endpoint: Versioned[Endpoint]) -> Convergence: ...
    async def until_applied(self, network: str, id_or_name: str, timeout_s: float) -> Convergence: ...


class Hosts(Protocol):
    def list(self) -> list[HostStatus]: ...
    def get(self, name: str) -> HostStatus: ...
    async def delete(self, name: str, caller: Caller, force: bool = False) -> None: ...


class Pools(Protocol):
    def list(self) -> list[PoolStatus]: ...
    def get(self, name: str) -> PoolStatus: ...
    async def create(self, request: PoolRequest, caller: Caller) -> PoolStatus: ...
    async def delete(self, name: str, caller: Caller, if_version: int | None = None) -> None: ...


class Reservations(Protocol):
    def list(self, network: str) -> list[Reservation]: ...
    async def create(self, network: str, request: ReservationRequest, caller: Caller) -> Reservation: ...
    async def delete(self, network: str, name_or_address: str, caller: Caller) -> None: ...


class Ipam(Protocol):
    def utilisation(self) -> Utilisation: ...
    def address(self, address: Address) -> list[AddressHolder]: ...
    def subnet(self, cidr: Cidr) -> list[SubnetHolder]: ...
    async def check(self) -> CheckReport: ...
    async def repair(self, caller: Caller) -> CheckReport: ...


class Events(Protocol):
    def since(self, revision: int | None = None) -> AsyncIterator[Event | Bookmark]: ...


class Cluster:
    networks: Networks
    endpoints: Endpoints
    hosts: Hosts
    pools: Pools
    reservations: Reservations
    ipam: Ipam
    events: Events

    @property
    def revision(self) -> int:
        """The store revision that every answer from memory is at least as new as."""
        raise NotImplementedError

    def status(self) -> ClusterStatus:
        raise NotImplementedError

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store, settings: Settings, rng: random.Random | None = None) -> AsyncIterator[Cluster]:
        raise NotImplementedError
        yield
