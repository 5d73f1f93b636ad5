"""Hosts: what is known of them, and how one leaves for good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from kvnet.client.connection import Connection
from kvnet.client.places import given, segment
from kvnet.wire import HeldPort, Host, Plan


class Hosts(Connection):
    def hosts(self) -> AsyncIterator[Host]:
        return cast(AsyncIterator[Host], self.all_of("/v1/hosts", {}))

    async def get_host(self, host: str) -> Host:
        return cast(Host, await self.request("GET", f"/v1/hosts/{segment(host)}"))

    async def host_ports(self, host: str, *, port: int = 0, protocol: str = "") -> list[HeldPort]:
        """The ports of a host that endpoints publish; all of them, or one."""
        query = given({"port": port, "protocol": protocol})
        answer = await self.request("GET", f"/v1/hosts/{segment(host)}/ports", query=query)
        return cast("list[HeldPort]", answer["items"])

    async def pause_repairs(self, host: str, seconds: int) -> dict[str, Any]:
        """The host's worker leaves the kernel alone for so long."""
        body = {"seconds": seconds}
        return await self.request("POST", f"/v1/hosts/{segment(host)}/pause", body=body, repeatable=True, wait_s=15.0)

    async def resume_repairs(self, host: str) -> dict[str, Any]:
        return await self.request("DELETE", f"/v1/hosts/{segment(host)}/pause", wait_s=15.0)

    async def delete_host(self, host: str, *, force: bool = False) -> None:
        query = {"force": "true"} if force else {}
        await self.request("DELETE", f"/v1/hosts/{segment(host)}", query=query)

    async def plan_host_deletion(self, host: str, *, force: bool = False) -> Plan:
        query = {"force": "true"} if force else {}
        return await self.plan("DELETE", f"/v1/hosts/{segment(host)}", query=query)

    async def examine_host(self, host: str) -> dict[str, Any]:
        """What its worker finds wrong with it; takes some seconds."""
        return await self.request("GET", f"/v1/hosts/{segment(host)}/doctor")
