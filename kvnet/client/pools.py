"""Pools, the reservations of networks, and the subnets that are held for networks about to be made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from kvnet.client.connection import Connection
from kvnet.client.places import segment
from kvnet.wire import Hold, HoldBody, Plan, Pool, PoolBody, Reservation


class Pools(Connection):
    def pools(self) -> AsyncIterator[Pool]:
        return cast(AsyncIterator[Pool], self.all_of("/v1/pools", {}))

    async def create_pool(self, body: PoolBody) -> Pool:
        return cast(Pool, await self.request("POST", "/v1/pools", body=dict(body)))

    async def get_pool(self, pool: str) -> Pool:
        return cast(Pool, await self.request("GET", f"/v1/pools/{segment(pool)}"))

    async def delete_pool(self, pool: str, *, version: int | None = None) -> None:
        await self.request("DELETE", f"/v1/pools/{segment(pool)}", version=version)

    async def plan_pool(self, body: PoolBody) -> Plan:
        return await self.plan("POST", "/v1/pools", body)

    async def plan_pool_deletion(self, pool: str, *, version: int | None = None) -> Plan:
        return await self.plan("DELETE", f"/v1/pools/{segment(pool)}", version=version)

    # reservations

    def reservations(self, network: str) -> AsyncIterator[Reservation]:
        return cast(AsyncIterator[Reservation], self.all_of(f"/v1/networks/{segment(network)}/reservations", {}))

    async def create_reservation(self, network: str, name: str, address: str = "") -> Reservation:
        body = {"name": name} | ({"address": address} if address else {})
        path = f"/v1/networks/{segment(network)}/reservations"
        return cast(Reservation, await self.request("POST", path, body=body, repeatable=True))

    async def delete_reservation(self, network: str, reservation: str) -> None:
        """`reservation` is its name or its address."""
        await self.request("DELETE", f"/v1/networks/{segment(network)}/reservations/{segment(reservation)}")

    async def plan_reservation(self, network: str, name: str, address: str = "") -> Plan:
        body = {"name": name} | ({"address": address} if address else {})
        return await self.plan("POST", f"/v1/networks/{segment(network)}/reservations", body)

    async def plan_reservation_deletion(self, network: str, reservation: str) -> Plan:
        return await self.plan("DELETE", f"/v1/networks/{segment(network)}/reservations/{segment(reservation)}")

    # holds

    async def hold_subnet(self, body: HoldBody) -> Hold:
        """Not repeated when its answer was lost, for that would be another hold; the first one runs out by itself."""
        return cast(Hold, await self.request("POST", "/v1/holds", body=dict(body)))

    def holds(self, *, host: str = "") -> AsyncIterator[Hold]:
        return cast(AsyncIterator[Hold], self.all_of("/v1/holds", {"host": host}))

    async def release_hold(self, hold: str) -> None:
        """No error if it is over already."""
        await self.request("DELETE", f"/v1/holds/{segment(hold)}", repeatable=True)

    async def get_hold(self, hold: str) -> Hold:
        return cast(Hold, await self.request("GET", f"/v1/holds/{segment(hold)}"))

    async def plan_hold(self, body: HoldBody) -> Plan:
        return await self.plan("POST", "/v1/holds", body)

    async def plan_hold_release(self, hold: str) -> Plan:
        return await self.plan("DELETE", f"/v1/holds/{segment(hold)}")
