"""A host turned hostile, and what it is hostile to: what the tests of a compromised host stand on."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import httpx2

from kvnet import codec, keys
from kvnet.model import Alive, Host, Inventory
from tests.security.admitted import Guarded, guarded

OWN = frozenset({"hosts/h1", "inventory/h1", "alive/h1", "observed/h1"})
JEWELS, VAULT = "jewels-marker", "vault-marker"
SUBNET = "10.66.0.0/24"

Attempt = tuple[str, str, Any]


@dataclass
class Scene:
    """`shared`, `jewels`: networks; `mine`, `theirs`, `vault`: endpoints. `words`: what the attacker must not learn."""

    site: Guarded
    attacker: httpx2.AsyncClient
    victim: httpx2.AsyncClient
    shared: dict[str, Any]
    jewels: dict[str, Any]
    mine: dict[str, Any]
    theirs: dict[str, Any]
    vault: dict[str, Any]
    session: str  # the victim's, as it has it
    own_session: str
    words: list[str] = field(default_factory=list)

    async def state(self) -> dict[str, str]:
        """All that an admin is shown, but for what is the attacker's to change."""
        found = await self.site.admin.post("/v1/store/list", json={"prefix": ""})
        assert found.status_code == 200, found.text
        return {e["key"]: e["value"] for e in found.json()["entries"] if e["key"] not in OWN}

    async def tokens(self) -> Any:
        return (await self.site.admin.get("/v1/tokens")).json()["items"]

    def require_silence(self, told: str, asked: str) -> None:
        for word in self.words:
            assert word in asked or word not in told, f"{word!r} is told: {told[:800]}"


async def made(site: Guarded, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await site.admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@asynccontextmanager
async def scene_on(store: str) -> AsyncIterator[Scene]:
    async with guarded(store, upkeep=False) as site:
        clients = [site.client(await site.make(host, "host", host=host)) for host in ("h1", "h2", "h10")]
        h1, h2, h10 = clients
        for number, (name, client) in enumerate((("h1", h1), ("h2", h2), ("h10", h10)), start=1):
            host = Host(name, ip_address(f"203.0.113.{number}"), 1500, segment=ip_network("203.0.113.0/24"))
            await committed(client, put(keys.host(name), host), put(keys.inventory(name), Inventory(name)))
        shared = await made(site, "/v1/networks", {"name": "shared"})
        jewels = await made(site, "/v1/networks", {"name": JEWELS, "subnets": [{"cidr": SUBNET}]})
        mine = await made(site, f"/v1/networks/{shared['id']}/endpoints", {"host": "h1", "name": "web"})
        theirs = await made(site, f"/v1/networks/{shared['id']}/endpoints", {"host": "h2", "name": "db"})
        vault = await made(site, f"/v1/networks/{jewels['id']}/endpoints", {"host": "h2", "name": VAULT})
        sessions = [await alive(client, name) for client, name in ((h1, "h1"), (h2, "h2"))]
        words = [JEWELS, VAULT, jewels["id"], vault["id"], vault["address"], vault["mac"], SUBNET]
        yield Scene(site, h1, h2, shared, jewels, mine, theirs, vault, sessions[1], sessions[0], words)
        for client in clients:
            await client.aclose()


def put(key: str, value: Any, session: str | None = None) -> dict[str, Any]:
    data = value if isinstance(value, bytes) else codec.encode(value)
    plain: dict[str, Any] = {"write": "put", "key": key, "value": b64encode(data).decode()}
    return plain if session is None else {**plain, "session": session}


def delete(key: str) -> dict[str, Any]:
    return {"write": "delete", "key": key}


async def committed(client: httpx2.AsyncClient, *writes: dict[str, Any]) -> None:
    answer = await client.post("/v1/store/commit", json={"checks": [], "writes": list(writes)})
    assert answer.status_code == 200, answer.text


async def alive(client: httpx2.AsyncClient, host: str) -> str:
    session = str((await client.post("/v1/store/sessions", json={"ttl_s": 60})).json()["id"])
    await committed(client, put(keys.alive(host), Alive(host, "run-1", 1.0), session))
    return session


def decoded(body: Any) -> str:
    """The values that it sends are known to it."""
    if not isinstance(body, dict):
        return ""
    return "".join(b64decode(w["value"]).decode("utf-8", "replace") for w in body.get("writes", ()) if "value" in w)
