"""The cluster as a whole: how full it is, who has what, whether it is consistent, and what the controllers believe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

from kvnet.client.connection import Connection
from kvnet.client.places import segment
from kvnet.wire import CheckReport

CONNECTIVITY_S = 120.0
TRACE_S = 30.0


class Cluster(Connection):
    async def ipam(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/ipam")

    async def who_has_address(self, address: str) -> dict[str, Any]:
        return await self.request("GET", f"/v1/ipam/addresses/{segment(address)}")

    async def who_has_subnet(self, cidr: str) -> dict[str, Any]:
        return await self.request("GET", f"/v1/ipam/subnets/{quote(cidr, safe='/:')}")

    async def check(self, *, repair: bool = False, report: Mapping[str, Any] | None = None) -> CheckReport:
        """`report`: an earlier answer; only what it lists is repaired, and only where nothing changed since."""
        method, query = ("POST", {"repair": "true"}) if repair else ("GET", {})
        body = None if report is None else dict(report)
        return cast(CheckReport, await self.request(method, "/v1/ipam/check", query=query, body=body, repeatable=True))

    async def status(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/status")

    async def store_state(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/store-state")

    async def accept_store(self, cluster: str, revision_before: int) -> dict[str, Any]:
        """Safe to repeat: what was accepted already is accepted once more."""
        body = {"cluster": cluster, "revision_before": revision_before}
        return await self.request("POST", "/v1/store-state/accept", body=body)

    async def upgrade(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/upgrade")

    async def finish_upgrade(self) -> dict[str, Any]:
        """Safe to repeat."""
        return await self.request("POST", "/v1/upgrade", repeatable=True)

    async def problem(self, code: str) -> dict[str, Any]:
        """What an error's code stands for."""
        return await self.request("GET", f"/problems/{segment(code)}")

    async def version(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/version")

    async def trace(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """The way between two endpoints: {"from", "to", "protocol", "port", ...}. Safe to repeat: it only looks."""
        return await self.request("POST", "/v1/trace", body=dict(wish), repeatable=True, wait_s=TRACE_S)

    async def test_connectivity(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Not repeated after a lost answer: the first one still runs then, and its hosts take part in one at a time."""
        return await self.request("POST", "/v1/connectivity", body=dict(wish), wait_s=CONNECTIVITY_S)

    async def join(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Become a host with a join token. Safe to repeat with the same hash."""
        return await self.request("POST", "/v1/join", body=dict(body), repeatable=True)
