"""The controllers as a worker reaches them: `worker.controller.HttpController` over simulated ways to the use cases.

In place of HTTP, and of those handlers of `controller.api` that a worker needs. Requests and answers get lost, the next
replica is tried where nothing was sent, and a controller goes on with what its caller has given up. Decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from controller import history
from controller.cluster import Cluster
from controller.endpoint_patching import EndpointPatch
from controller.requests import Caller, EndpointRequest, PortRequest
from kvnet import codec
from kvnet.errors import KvnetError
from kvnet.http import NotSent, Reply
from kvnet.model import Endpoint, Network, Versioned
from kvnet.problems import to_problem
from tests.simulation.network import Link
from tests.simulation.replica import Replica
from worker.controller import HttpController
from worker.ports import Time

Json = dict[str, Any]
Handler = Callable[[Cluster], Awaitable[Reply]]

ENDPOINT_FIELDS = frozenset(field.name for field in fields(EndpointRequest))
TUPLES = ("aliases", "ports")


class SimulatedController(HttpController):
    """The worker's own client; only what it sends its requests with is another."""

    def __init__(self, replicas: Sequence[tuple[Replica, Link]], host: str, time: Time) -> None:
        super().__init__("http://controllers.test", time=time)
        self._http = _Ways(replicas, host, time)  # type: ignore[assignment]


class _Ways:
    """In place of `kvnet.http.HttpClient`: stays with the replica that answered last."""

    def __init__(self, replicas: Sequence[tuple[Replica, Link]], host: str, time: Time) -> None:
        self._replicas = list(replicas)
        self._host = host
        self._time = time

    async def request(
        self, method: str, path: str, body: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        handler = _handler(method, path, body, headers or {}, self._host)
        for place in range(len(self._replicas)):
            replica, link = self._replicas[0]
            try:
                return await replica.ask(link, timeout_s, handler)
            except KvnetError as error:
                return Reply(error.status, json.dumps(to_problem(error)).encode())
            except NotSent:
                self._replicas.append(self._replicas.pop(0))
                if place + 1 == len(self._replicas):
                    raise
        raise NotSent("no replica")

    async def close(self) -> None:
        return None


def _handler(method: str, path: str, body: bytes, headers: Mapping[str, str], host: str) -> Handler:
    url = urlsplit(path)
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    sent = json.loads(body) if body else {}
    caller = Caller(f"worker {host}", headers.get("x-request-id", ""), host)
    match method, parts:
        case "POST", ["v1", "networks", network, "endpoints"]:
            return lambda cluster: _create(cluster, network, sent, caller)
        case "PATCH", ["v1", "networks", network, "endpoints", endpoint]:
            return lambda cluster: _update(cluster, network, endpoint, sent, caller)
        case "DELETE", ["v1", "networks", network, "endpoints", endpoint]:
            tag = headers.get("if-match")
            version = int(tag.strip('"')) if tag else None
            return lambda cluster: _delete(cluster, network, endpoint, caller, version)
        case "GET", ["v1", "journal"]:
            asked = parse_qs(url.query)
            return lambda cluster: _journal(cluster, asked["network"][0], int(asked["limit"][0]))
        case "GET", ["readyz"]:
            return _ready
    raise NotImplementedError(f"{method} {path}")


async def _create(cluster: Cluster, network: str, sent: Json, caller: Caller) -> Reply:
    cluster.standing.require()
    net = (await cluster.networks.fresh(network)).value
    made = await cluster.endpoints.create(net.id, endpoint_request(sent), caller)
    return _reply(201, shown(made, net))


async def _update(cluster: Cluster, network: str, endpoint: str, sent: Json, caller: Caller) -> Reply:
    cluster.standing.require()
    made = await cluster.endpoints.update(network, endpoint, endpoint_patch(sent), caller, None)
    return _reply(200, shown(made, (await cluster.networks.fresh(made.value.network)).value))


async def _delete(cluster: Cluster, network: str, endpoint: str, caller: Caller, version: int | None) -> Reply:
    cluster.standing.require()
    await cluster.endpoints.delete(network, endpoint, caller, version)
    return Reply(204, b"")


async def _journal(cluster: Cluster, network: str, limit: int) -> Reply:
    found = await history.changes(cluster.events, history.Subject(networks=(network,)), limit)
    items = [{"key": event.key, "after": event.after, "request_id": event.request_id} for event in found]
    return _reply(200, {"items": items})


async def _ready(cluster: Cluster) -> Reply:
    return Reply(200, b"{}")


def endpoint_request(sent: Mapping[str, Any]) -> EndpointRequest:
    given = {name: value for name, value in sent.items() if name in ENDPOINT_FIELDS}
    given["ports"] = tuple(PortRequest(**port) for port in sent.get("ports", ()))
    given["aliases"] = tuple(sent.get("aliases", ()))
    return EndpointRequest(**given)


def endpoint_patch(sent: Mapping[str, Any]) -> EndpointPatch:
    given = {name: value for name, value in sent.items() if name not in ("ports", "reuse")}
    ports = tuple(PortRequest(**port) for port in sent["ports"]) if "ports" in sent else None
    return EndpointPatch(given, ports, bool(sent.get("reuse")))


def shown(endpoint: Versioned[Endpoint], network: Network) -> Json:
    one = endpoint.value
    plain = {**codec.to_json(one), "network_name": network.name, "version": endpoint.version}
    plain["address"] = str(one.address) if one.address else None
    plain["address6"] = str(one.address6) if one.address6 else None
    return plain


def _reply(status: int, body: Json) -> Reply:
    return Reply(status, json.dumps(body, default=str).encode())
