"""Endpoints: claimed, changed and released; and what a change of one would do."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from kvnet.client.connection import Connection
from kvnet.client.places import segment
from kvnet.errors import Invalid, KvnetError
from kvnet.problems import from_problem
from kvnet.wire import Endpoint, EndpointBody, EndpointPatchBody, Plan

MAX_BULK = 500


class Endpoints(Connection):
    async def create_endpoint(self, network: str, body: EndpointBody, *, wait_s: float = 0.0) -> Endpoint:
        """Without an id one is made up here, so that a repeat is the same one. `wait_s`: until all hosts know it."""
        path = f"/v1/networks/{segment(network)}/endpoints"
        filled = {"id": new_endpoint_id(), **body}
        made = await self.request("POST", path, body=filled, repeatable=True, converge_s=wait_s)
        return cast(Endpoint, made)

    async def create_endpoints(self, network: str, bodies: Sequence[EndpointBody]) -> list[Endpoint | KvnetError]:
        """Many at once, each on its own: the answers stand in the order of `bodies`, an error where one was refused."""
        if len(bodies) > MAX_BULK:
            raise Invalid.field("/items", f"{len(bodies)} endpoints at once; at most {MAX_BULK}", "send several lists")
        filled = [{"id": new_endpoint_id(), **body} for body in bodies]
        path = f"/v1/networks/{segment(network)}/endpoints"
        answer = await self.request("POST", path, body={"items": filled}, repeatable=True)
        return [_item(item) for item in answer["items"]]

    async def get_endpoint(self, network: str, endpoint: str) -> Endpoint:
        path = f"/v1/networks/{segment(network)}/endpoints/{segment(endpoint)}"
        return cast(Endpoint, await self.request("GET", path))

    def endpoints(self, *, network: str = "", host: str = "", address: str = "") -> AsyncIterator[Endpoint]:
        query = {"network": network, "host": host, "address": address}
        return cast(AsyncIterator[Endpoint], self.all_of("/v1/endpoints", query))

    async def update_endpoint(
        self,
        network: str,
        endpoint: str,
        patch: EndpointPatchBody,
        *,
        version: int | None = None,
        wait_s: float = 0.0,
    ) -> Endpoint:
        """A merge patch: only what it names. Without a version it may be repeated, and is."""
        path = f"/v1/networks/{segment(network)}/endpoints/{segment(endpoint)}"
        changed = await self.request(
            "PATCH", path, body=dict(patch), version=version, repeatable=version is None, converge_s=wait_s
        )
        return cast(Endpoint, changed)

    async def delete_endpoint(
        self, network: str, endpoint: str, *, version: int | None = None, wait_s: float = 0.0
    ) -> dict[str, Any]:
        """{"applied": ...} where that was waited for, else nothing."""
        path = f"/v1/networks/{segment(network)}/endpoints/{segment(endpoint)}"
        return await self.request("DELETE", path, version=version, converge_s=wait_s)

    async def plan_endpoint(self, network: str, body: EndpointBody) -> Plan:
        return await self.plan("POST", f"/v1/networks/{segment(network)}/endpoints", body)

    async def plan_endpoint_update(
        self, network: str, endpoint: str, patch: EndpointPatchBody, *, version: int | None = None
    ) -> Plan:
        path = f"/v1/networks/{segment(network)}/endpoints/{segment(endpoint)}"
        return await self.plan("PATCH", path, patch, version)

    async def plan_endpoint_deletion(self, network: str, endpoint: str, *, version: int | None = None) -> Plan:
        path = f"/v1/networks/{segment(network)}/endpoints/{segment(endpoint)}"
        return await self.plan("DELETE", path, version=version)


def new_endpoint_id() -> str:
    return secrets.token_hex(8)


def _item(item: Mapping[str, Any]) -> Endpoint | KvnetError:
    if "problem" in item:
        return from_problem(item["problem"], status=item["status"])
    return cast(Endpoint, item["endpoint"])
