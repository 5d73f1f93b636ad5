"""Networks: made, changed, named, peered and removed; and what a change of one would do."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any, cast

from kvnet.client.connection import Connection
from kvnet.client.places import segment
from kvnet.wire import NameBody, Network, NetworkBody, NetworkConvergence, NetworkPatchBody, Page, Plan


class Networks(Connection):
    """`wait_s`, where there is one: answered when every host has applied it, or after so long; `applied` says which."""

    async def create_network(self, body: NetworkBody, *, wait_s: float = 0.0) -> Network:
        """Without an id or a hold an id is made up here, so that a repeat is the same network."""
        filled = {**body} if body.get("holds") else {"id": secrets.token_hex(6), **body}
        made = await self.request("POST", "/v1/networks", body=filled, repeatable=True, converge_s=wait_s)
        return cast(Network, made)

    async def get_network(self, network: str) -> Network:
        return cast(Network, await self.request("GET", f"/v1/networks/{segment(network)}"))

    async def list_networks(
        self, *, name: str = "", label: str = "", driver: str = "", limit: int = 0, cursor: str = ""
    ) -> Page[Network]:
        """One page; `networks()` gives them all."""
        query = {"name": name, "label": label, "driver": driver, "limit": limit, "cursor": cursor}
        return cast("Page[Network]", await self.page("/v1/networks", query))

    def networks(self, *, name: str = "", label: str = "", driver: str = "") -> AsyncIterator[Network]:
        return cast(
            AsyncIterator[Network], self.all_of("/v1/networks", {"name": name, "label": label, "driver": driver})
        )

    async def network_convergence(self, network: str) -> NetworkConvergence:
        """Per host the version wanted, the version applied, and the lag."""
        path = f"/v1/networks/{segment(network)}/convergence"
        return cast(NetworkConvergence, await self.request("GET", path))

    async def update_network(
        self, network: str, patch: NetworkPatchBody, *, version: int | None = None, wait_s: float = 0.0
    ) -> Network:
        """A repeat changes nothing, except where a subnet is cut from a pool."""
        is_repeatable = version is None and all("pool" not in subnet for subnet in patch.get("subnets", ()))
        path = f"/v1/networks/{segment(network)}"
        made = await self.request(
            "PATCH", path, body=dict(patch), version=version, repeatable=is_repeatable, converge_s=wait_s
        )
        return cast(Network, made)

    async def name_network(self, network: str, body: NameBody) -> Network:
        """The name of one that was made with `naming`; the same name again is no error."""
        path = f"/v1/networks/{segment(network)}/name"
        return cast(Network, await self.request("POST", path, body=dict(body), repeatable=True))

    async def peer_networks(self, network: str, peer: str, *, wait_s: float = 0.0) -> Network:
        path = f"/v1/networks/{segment(network)}/peers/{segment(peer)}"
        return cast(Network, await self.request("POST", path, repeatable=True, converge_s=wait_s))

    async def unpeer_networks(self, network: str, peer: str, *, wait_s: float = 0.0) -> dict[str, Any]:
        path = f"/v1/networks/{segment(network)}/peers/{segment(peer)}"
        return await self.request("DELETE", path, repeatable=True, converge_s=wait_s)

    async def delete_network(self, network: str, *, version: int | None = None, wait_s: float = 0.0) -> dict[str, Any]:
        """{"applied": ...} where that was waited for, else nothing."""
        return await self.request("DELETE", f"/v1/networks/{segment(network)}", version=version, converge_s=wait_s)

    async def prune_networks(self, *, dry_run: bool = False) -> dict[str, Any]:
        query = {"dry_run": "true"} if dry_run else {}
        return await self.request("POST", "/v1/networks/prune", query=query, repeatable=dry_run)

    async def plan_network(self, body: NetworkBody) -> Plan:
        return await self.plan("POST", "/v1/networks", body)

    async def plan_update(self, network: str, patch: NetworkPatchBody, *, version: int | None = None) -> Plan:
        return await self.plan("PATCH", f"/v1/networks/{segment(network)}", patch, version)

    async def plan_network_deletion(self, network: str, *, version: int | None = None) -> Plan:
        return await self.plan("DELETE", f"/v1/networks/{segment(network)}", version=version)

    async def plan_peering(self, network: str, peer: str) -> Plan:
        return await self.plan("POST", f"/v1/networks/{segment(network)}/peers/{segment(peer)}")

    async def plan_unpeering(self, network: str, peer: str) -> Plan:
        return await self.plan("DELETE", f"/v1/networks/{segment(network)}/peers/{segment(peer)}")
