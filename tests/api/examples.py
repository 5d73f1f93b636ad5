"""Records what a real controller answers, as the examples of the API's description.

`python -m tests.api.examples > controller/api/examples.json` after a change of what answers have; a test says when.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.open import open_store
from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Alive
from tests.api.under_test import Api, running


@dataclass(frozen=True)
class Call:
    """One request; `operation` is its id in the description."""

    operation: str
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


WEB = {"host": "h1", "name": "web", "aliases": ["www"], "ports": [{"port": 80, "host_port": 8080}]}
ADMIN = {"name": "alice", "role": "admin"}
CALLS = (
    Call("create_token", "POST", "/v1/tokens", {"name": "team-red", "role": "operator", "scope": {"team": "red"}}),
    Call("create_network", "POST", "/v1/networks", {"name": "app", "subnets": [{"cidr": "10.1.0.0/24"}]}),
    Call(
        "create_network", "POST", "/v1/networks", {"name": "app", "id": "{app}", "subnets": [{"cidr": "10.1.0.0/24"}]}
    ),
    Call("create_network", "POST", "/v1/networks?dry_run=plan", {"name": "other"}),
    Call("create_network", "POST", "/v1/networks", {"name": "db", "subnets": [{"cidr": "10.2.0.0/24"}]}),
    Call("create_endpoints", "POST", "/v1/networks/app/endpoints", {"id": "4f2c9a17d3e85b60", **WEB}),
    Call("create_endpoints", "POST", "/v1/networks/app/endpoints", {"id": "4f2c9a17d3e85b60", **WEB}),
    Call("peer_networks", "POST", "/v1/networks/app/peers/db"),
    Call("peer_networks", "POST", "/v1/networks/app/peers/db"),
    Call("create_reservation", "POST", "/v1/networks/app/reservations", {"name": "printer", "address": "10.1.0.9"}),
    Call("create_reservation", "POST", "/v1/networks/app/reservations", {"name": "printer", "address": "10.1.0.9"}),
    Call("create_pool", "POST", "/v1/pools", {"name": "lab", "cidr": "172.30.0.0/16", "prefix_length": 24}),
    Call("create_pool", "POST", "/v1/pools", {"name": "lab", "cidr": "172.30.0.0/16", "prefix_length": 24}),
    Call("create_hold", "POST", "/v1/holds", {"host": "h1", "cidr": "10.9.0.0/24"}),
)


async def recorded() -> dict[str, dict[str, Any]]:
    """By operation id and status: the first answer that was given."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(f"sqlite://{folder}/store.db") as api:
            await _all_alive(api)
            await authenticated(api)
            return await _record(api)


# Answered by hosts themselves, and there are none here.
NOT_ASKED = frozenset({"/v1/events", "/v1/join", "/v1/login", "/v1/certificate"})
OF_WORKERS = frozenset({"/v1/trace", "/v1/connectivity", "/v1/hosts/{host}/doctor", "/v1/hosts/{host}/pause"})


async def _all_alive(api: Api) -> None:
    async with await open_store(api.url) as store:
        for host in ("h0", "h1", "h2"):
            await store.commit([], [Put(keys.alive(host), codec.encode(Alive(host, "9f3ab1c2d4e5f607", 0.0)))])


async def authenticated(api: Api) -> str:
    """The first token of the cluster, which the client bears from then on."""
    made = await api.http.post("/v1/tokens", json=ADMIN)
    assert made.status_code == 201, made.text
    token = str(made.json()["token"])
    api.http.headers["Authorization"] = f"Bearer {token}"
    return token


async def _record(api: Api) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    document = (await api.get("/openapi.json")).json()
    ids: dict[str, str] = {}
    for call in CALLS:
        body = json.loads(json.dumps(call.body).replace("{app}", ids.get("app", "")))
        answer = await api.http.request(call.method, call.path, json=body, headers=dict(call.headers))
        assert answer.status_code < 300, (call, answer.text)
        if call.operation == "create_network" and "dry_run" not in call.path:
            ids[answer.json()["name"]] = answer.json()["id"]
        if call.operation == "create_hold":
            ids["hold"] = answer.json()["id"]
        _note(found, call.operation, answer.status_code, _without_secret(answer.json()))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            await _ask(api, found, path, method, operation, ids)
    return dict(sorted(found.items()))


async def _ask(
    api: Api, found: dict[str, dict[str, Any]], path: str, method: str, operation: dict[str, Any], ids: dict[str, str]
) -> None:
    """What changes nothing is asked for by the description's own example parameters; changes that have no call above
    are asked for with their first example body."""
    name = operation["operationId"]
    if name in found or path in NOT_ASKED or path in OF_WORKERS or method == "delete":
        return
    examples = {p["name"]: p.get("example", "") for p in operation.get("parameters", ()) if p["in"] == "path"}
    asked = path.format(**{**examples, "hold": ids["hold"]})
    content = next(iter(operation.get("requestBody", {}).get("content", {}).values()), {})
    body = next(iter(content.get("examples", {}).values()), {}).get("value")
    answer = await api.http.request(method.upper(), asked, json=body)
    if answer.status_code < 300 and answer.headers.get("content-type", "").startswith("application/json"):
        _note(found, name, answer.status_code, _without_secret(answer.json()))


def _without_secret(body: Any) -> Any:
    """A credential, even one that is good nowhere, is not shown."""
    if isinstance(body, dict) and str(body.get("token", "")).startswith("kvnet_"):
        return {**body, "token": f"kvnet_{body['id']}_{'x' * 43}"}
    return body


def _note(found: dict[str, dict[str, Any]], operation: str, status: int, body: Any) -> None:
    found.setdefault(operation, {}).setdefault(str(status), body)


def main() -> None:
    sys.stdout.write(json.dumps(asyncio.run(recorded()), indent=1) + "\n")


if __name__ == "__main__":
    main()
