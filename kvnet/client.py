"""The HTTP API as async methods: what the CLI and the workers speak to a controller with.

Repeats a request only where a second one cannot do harm: reads; creations (the caller's or a generated id makes them
the same object); and whatever was certainly not received or not written. A lost answer to anything else is
`OutcomeUnknown`, for the caller to decide. Problems come back as the `KvnetError` class that the controller raised.
Never caches, never prints, never imports the server; environment proxies are not used.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

import httpx2

from kvnet.errors import ControllerUnreachable, Gone, Invalid, KvnetError, OutcomeUnknown, StoreWentBack
from kvnet.problems import from_problem
from kvnet.wire import (
    CheckReport,
    Endpoint,
    EndpointBody,
    EndpointPatchBody,
    Event,
    HeldPort,
    Hold,
    HoldBody,
    Host,
    NameBody,
    Network,
    NetworkBody,
    NetworkPatchBody,
    Page,
    Plan,
    Pool,
    PoolBody,
    Reservation,
)

DEFAULT_CONTROLLER = "http://127.0.0.1:7480"
CONNECT_TIMEOUT_S = 5.0
ATTEMPTS = 4
STREAM_ATTEMPTS = 10  # of a stream that has worked: about ten seconds, enough for a controller's restart
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
MAX_BULK = 500
MAX_CONNECTIONS = 100
MERGE_PATCH = "application/merge-patch+json"
STREAM_SILENCE_S = 45.0  # the controller sends a ping every 15 s

# Codes that promise that nothing was written: a repeat is always safe.
NOT_WRITTEN = frozenset({"store-unavailable", "contention"})
# What a proxy in front of several replicas answers while one of them goes away.
PASSING_STATUS = frozenset({502, 503, 504})
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Client:
    """A connection to a controller. Use it as `async with Client(url) as client`.

    Every method raises the KvnetError that the controller answered with, `ControllerUnreachable` when nobody
    answers, and `OutcomeUnknown` when the answer to a change that must not be repeated was lost.
    """

    def __init__(
        self,
        url: str = DEFAULT_CONTROLLER,
        *,
        token: str = "",
        timeout_s: float = 30.0,
        attempts: int = ATTEMPTS,
        transport: httpx2.AsyncBaseTransport | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = url
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._rng = rng or random.Random()
        self._sleep = sleep
        base_url, uds = _target(url)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise Invalid("the token has characters that no HTTP header may carry", fix="give it as it was issued")
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            transport=transport or _transport(base_url, uds),
            headers={"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    # networks

    async def create_network(self, body: NetworkBody) -> Network:
        """Without an id or a hold an id is made up here, so that a repeat is the same network."""
        filled = {**body} if body.get("holds") else {"id": secrets.token_hex(6), **body}
        return cast(Network, await self._request("POST", "/v1/networks", body=filled, repeatable=True))

    async def get_network(self, network: str) -> Network:
        return cast(Network, await self._request("GET", f"/v1/networks/{_part(network)}"))

    async def list_networks(
        self, *, name: str = "", label: str = "", driver: str = "", limit: int = 0, cursor: str = ""
    ) -> Page[Network]:
        """One page; `networks()` gives them all."""
        query = {"name": name, "label": label, "driver": driver, "limit": limit, "cursor": cursor}
        return cast("Page[Network]", await self._page("/v1/networks", query))

    def networks(self, *, name: str = "", label: str = "", driver: str = "") -> AsyncIterator[Network]:
        return cast(AsyncIterator[Network], self._all("/v1/networks", {"name": name, "label": label, "driver": driver}))

    async def update_network(self, network: str, patch: NetworkPatchBody, *, version: int | None = None) -> Network:
        """A repeat changes nothing, except where a subnet is cut from a pool."""
        is_repeatable = version is None and all("pool" not in subnet for subnet in patch.get("subnets", ()))
        path = f"/v1/networks/{_part(network)}"
        made = await self._request("PATCH", path, body=dict(patch), version=version, repeatable=is_repeatable)
        return cast(Network, made)

    async def name_network(self, network: str, body: NameBody) -> Network:
        """The name of one that was made with `naming`; the same name again is no error."""
        path = f"/v1/networks/{_part(network)}/name"
        return cast(Network, await self._request("POST", path, body=dict(body), repeatable=True))

    async def peer_networks(self, network: str, peer: str) -> Network:
        path = f"/v1/networks/{_part(network)}/peers/{_part(peer)}"
        return cast(Network, await self._request("POST", path, repeatable=True))

    async def unpeer_networks(self, network: str, peer: str) -> None:
        await self._request("DELETE", f"/v1/networks/{_part(network)}/peers/{_part(peer)}", repeatable=True)

    async def delete_network(self, network: str, *, version: int | None = None) -> None:
        await self._request("DELETE", f"/v1/networks/{_part(network)}", version=version)

    async def prune_networks(self, *, dry_run: bool = False) -> dict[str, Any]:
        query = {"dry_run": "true"} if dry_run else {}
        return await self._request("POST", "/v1/networks/prune", query=query, repeatable=dry_run)

    # holds

    async def hold_subnet(self, body: HoldBody) -> Hold:
        """Not repeated when its answer was lost, for that would be another hold; the first one runs out by itself."""
        return cast(Hold, await self._request("POST", "/v1/holds", body=dict(body)))

    def holds(self, *, host: str = "") -> AsyncIterator[Hold]:
        return cast(AsyncIterator[Hold], self._all("/v1/holds", {"host": host}))

    async def release_hold(self, hold: str) -> None:
        """No error if it is over already."""
        await self._request("DELETE", f"/v1/holds/{_part(hold)}", repeatable=True)

    # endpoints

    async def create_endpoint(self, network: str, body: EndpointBody, *, wait_s: float = 0.0) -> Endpoint:
        """Without an id one is made up here, so that a repeat is the same one. `wait_s`: until all hosts know it."""
        query = {"wait": f"{wait_s:g}"} if wait_s else {}
        path = f"/v1/networks/{_part(network)}/endpoints"
        filled = {"id": new_endpoint_id(), **body}
        made = await self._request("POST", path, query=query, body=filled, repeatable=True, wait_s=wait_s)
        return cast(Endpoint, made)

    async def create_endpoints(self, network: str, bodies: Sequence[EndpointBody]) -> list[Endpoint | KvnetError]:
        """Many at once, each on its own: the answers stand in the order of `bodies`, an error where one was refused."""
        if len(bodies) > MAX_BULK:
            raise Invalid.field("/items", f"{len(bodies)} endpoints at once; at most {MAX_BULK}", "send several lists")
        filled = [{"id": new_endpoint_id(), **body} for body in bodies]
        path = f"/v1/networks/{_part(network)}/endpoints"
        answer = await self._request("POST", path, body={"items": filled}, repeatable=True)
        return [_item(item) for item in answer["items"]]

    async def get_endpoint(self, network: str, endpoint: str) -> Endpoint:
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        return cast(Endpoint, await self._request("GET", path))

    def endpoints(self, *, network: str = "", host: str = "", address: str = "") -> AsyncIterator[Endpoint]:
        query = {"network": network, "host": host, "address": address}
        return cast(AsyncIterator[Endpoint], self._all("/v1/endpoints", query))

    async def update_endpoint(
        self, network: str, endpoint: str, patch: EndpointPatchBody, *, version: int | None = None
    ) -> Endpoint:
        """A merge patch: only what it names. Without a version it may be repeated, and is."""
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        changed = await self._request("PATCH", path, body=dict(patch), version=version, repeatable=version is None)
        return cast(Endpoint, changed)

    async def delete_endpoint(self, network: str, endpoint: str, *, version: int | None = None) -> None:
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        await self._request("DELETE", path, version=version)

    # plans: the same requests, and nothing is changed

    async def plan_network(self, body: NetworkBody) -> Plan:
        return await self._plan("POST", "/v1/networks", body)

    async def plan_update(self, network: str, patch: NetworkPatchBody, *, version: int | None = None) -> Plan:
        return await self._plan("PATCH", f"/v1/networks/{_part(network)}", patch, version)

    async def plan_network_deletion(self, network: str, *, version: int | None = None) -> Plan:
        return await self._plan("DELETE", f"/v1/networks/{_part(network)}", version=version)

    async def plan_peering(self, network: str, peer: str) -> Plan:
        return await self._plan("POST", f"/v1/networks/{_part(network)}/peers/{_part(peer)}")

    async def plan_unpeering(self, network: str, peer: str) -> Plan:
        return await self._plan("DELETE", f"/v1/networks/{_part(network)}/peers/{_part(peer)}")

    async def plan_endpoint(self, network: str, body: EndpointBody) -> Plan:
        return await self._plan("POST", f"/v1/networks/{_part(network)}/endpoints", body)

    async def plan_endpoint_update(
        self, network: str, endpoint: str, patch: EndpointPatchBody, *, version: int | None = None
    ) -> Plan:
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        return await self._plan("PATCH", path, patch, version)

    async def plan_endpoint_deletion(self, network: str, endpoint: str, *, version: int | None = None) -> Plan:
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        return await self._plan("DELETE", path, version=version)

    async def _plan(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, version: int | None = None
    ) -> Plan:
        asked = None if body is None else dict(body)
        told = await self._request(
            method, path, query={"dry_run": "plan"}, body=asked, version=version, repeatable=True
        )
        return cast(Plan, told)

    # hosts

    def hosts(self) -> AsyncIterator[Host]:
        return cast(AsyncIterator[Host], self._all("/v1/hosts", {}))

    async def get_host(self, host: str) -> Host:
        return cast(Host, await self._request("GET", f"/v1/hosts/{_part(host)}"))

    async def host_ports(self, host: str, *, port: int = 0, protocol: str = "") -> list[HeldPort]:
        """The ports of a host that endpoints publish; all of them, or one."""
        query = _given({"port": port, "protocol": protocol})
        answer = await self._request("GET", f"/v1/hosts/{_part(host)}/ports", query=query)
        return cast("list[HeldPort]", answer["items"])

    async def delete_host(self, host: str, *, force: bool = False) -> None:
        query = {"force": "true"} if force else {}
        await self._request("DELETE", f"/v1/hosts/{_part(host)}", query=query)

    # pools, reservations

    def pools(self) -> AsyncIterator[Pool]:
        return cast(AsyncIterator[Pool], self._all("/v1/pools", {}))

    async def create_pool(self, body: PoolBody) -> Pool:
        return cast(Pool, await self._request("POST", "/v1/pools", body=dict(body)))

    async def get_pool(self, pool: str) -> Pool:
        return cast(Pool, await self._request("GET", f"/v1/pools/{_part(pool)}"))

    async def delete_pool(self, pool: str) -> None:
        await self._request("DELETE", f"/v1/pools/{_part(pool)}")

    def reservations(self, network: str) -> AsyncIterator[Reservation]:
        return cast(AsyncIterator[Reservation], self._all(f"/v1/networks/{_part(network)}/reservations", {}))

    async def create_reservation(self, network: str, name: str, address: str = "") -> Reservation:
        body = {"name": name} | ({"address": address} if address else {})
        path = f"/v1/networks/{_part(network)}/reservations"
        return cast(Reservation, await self._request("POST", path, body=body, repeatable=True))

    async def delete_reservation(self, network: str, reservation: str) -> None:
        """`reservation` is its name or its address."""
        await self._request("DELETE", f"/v1/networks/{_part(network)}/reservations/{_part(reservation)}")

    # what is used by whom, and is it right

    async def ipam(self) -> dict[str, Any]:
        return await self._request("GET", "/v1/ipam")

    async def who_has_address(self, address: str) -> dict[str, Any]:
        return await self._request("GET", f"/v1/ipam/addresses/{_part(address)}")

    async def who_has_subnet(self, cidr: str) -> dict[str, Any]:
        return await self._request("GET", f"/v1/ipam/subnets/{quote(cidr, safe='/:')}")

    async def check(self, *, repair: bool = False) -> CheckReport:
        method, query = ("POST", {"repair": "true"}) if repair else ("GET", {})
        return cast(CheckReport, await self._request(method, "/v1/ipam/check", query=query, repeatable=True))

    async def status(self) -> dict[str, Any]:
        return await self._request("GET", "/v1/status")

    async def store_state(self) -> dict[str, Any]:
        return await self._request("GET", "/v1/store-state")

    async def accept_store(self, cluster: str, revision_before: int) -> dict[str, Any]:
        """Safe to repeat: what was accepted already is accepted once more."""
        body = {"cluster": cluster, "revision_before": revision_before}
        return await self._request("POST", "/v1/store-state/accept", body=body)

    async def version(self) -> dict[str, Any]:
        return await self._request("GET", "/v1/version")

    # events

    async def events(
        self, *, since: int | None = None, kind: str = "", network: str = "", follow: bool = True
    ) -> AsyncIterator[Event]:
        """What happened after revision `since`, then what happens; a broken stream is taken up where it broke.

        Without `follow` it ends with the first bookmark: everything up to then has been told.

        Raises:
            Gone: `since` is older than the journal.
        """
        failures, patience = 0, self._attempts
        while True:
            trouble: KvnetError = ControllerUnreachable(
                f"{self.url} ends the event stream at once, again and again", fix="see the controller's log"
            )
            try:
                async for event, position in self._stream(since, kind, network):
                    failures, patience, since = 0, STREAM_ATTEMPTS, position
                    yield event
                    if event.type == "bookmark" and not follow:
                        return
            except httpx2.TransportError as error:
                trouble = self._unreachable(error)
            except KvnetError as error:
                if error.status not in PASSING_STATUS:
                    raise
                trouble = error
            failures += 1
            if failures >= patience:
                raise trouble
            await self._sleep(self._delay_s(failures))

    async def _stream(self, since: int | None, kind: str, network: str) -> AsyncIterator[tuple[Event, int | None]]:
        """Events, each with the position to resume from: several may share a revision, and only the last has its id."""
        query = _given({"since": since, "kind": kind, "network": network})
        headers = {"Accept": "text/event-stream"}
        timeout = httpx2.Timeout(STREAM_SILENCE_S, connect=CONNECT_TIMEOUT_S)
        async with self._http.stream("GET", "/v1/events", params=query, headers=headers, timeout=timeout) as response:
            if response.status_code >= 400:
                await response.aread()
                raise _problem(response)
            async for message in httpx2.EventSource(response):
                data = _event_data(message)
                if message.event == "gone":
                    raise from_problem({"code": Gone.code, **data}, status=Gone.status)
                since = int(message.id) if message.id.isdecimal() else since
                yield Event(message.event, data.get("revision") or since or 0, data), since

    # how it is done

    async def _page(self, path: str, query: Mapping[str, Any]) -> Page[Any]:
        answer = await self._request("GET", path, query=_given(query))
        return Page(answer["items"], answer.get("next_cursor") or "", answer.get("revision") or 0)

    async def _all(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Any]:
        cursor = ""
        while True:
            page = await self._page(path, {**query, "cursor": cursor})
            for item in page.items:
                yield item
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        version: int | None = None,
        repeatable: bool = False,
        wait_s: float = 0.0,
    ) -> dict[str, Any]:
        """Send it, again if need be. `repeatable`: a second one does no harm even if the first was carried out.

        `wait_s`: how much longer than usual the answer may take.
        """
        repeatable = repeatable or method == "GET"
        request = self._http.build_request(
            method,
            path,
            params=query,
            json=body,
            headers=_headers(method, version),
            timeout=httpx2.Timeout(self._timeout_s + wait_s, connect=CONNECT_TIMEOUT_S),
        )
        last_start = time.monotonic() + self._timeout_s + wait_s
        attempt = 0
        while True:
            attempt += 1
            outcome = await self._try(request, repeatable=repeatable)
            if not isinstance(outcome, KvnetError):
                return outcome
            if attempt >= self._attempts or time.monotonic() >= last_start:
                raise outcome
            await self._sleep(self._delay_s(attempt))

    async def _try(self, request: httpx2.Request, *, repeatable: bool) -> dict[str, Any] | KvnetError:
        """The answer, or an error after which a repeat does no harm. Raises those after which it might."""
        try:
            response = await self._http.send(request)
        except _NOT_SENT as error:
            return self._unreachable(error)
        except httpx2.TransportError as error:
            if repeatable:
                return self._unreachable(error)
            raise _lost(request, error) from error
        if response.status_code < 400:
            return _json(response)
        problem = _problem(response)
        if problem.code == StoreWentBack.code:  # an operator ends that, not time
            raise problem
        if problem.code in NOT_WRITTEN or (repeatable and response.status_code in PASSING_STATUS):
            return problem
        raise problem

    def _delay_s(self, attempt: int) -> float:
        """Doubling, with jitter: a crowd of callers that failed together does not come back together."""
        longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * float(2 ** (attempt - 1)))
        return longest * self._rng.uniform(0.5, 1.0)

    def _unreachable(self, error: Exception) -> ControllerUnreachable:
        reason = str(error) or type(error).__name__
        return ControllerUnreachable(
            f"no answer from the controller at {self.url}: {reason}",
            fix="start one with 'kvnet controller', or name another with --controller or KVNET_CONTROLLER",
            context={"controller": self.url},
        )


def _headers(method: str, version: int | None) -> dict[str, str]:
    kind = {"Content-Type": MERGE_PATCH} if method == "PATCH" else {}
    return kind if version is None else {**kind, "If-Match": f'"{version}"'}


def new_endpoint_id() -> str:
    return secrets.token_hex(8)


def _target(url: str) -> tuple[str, str | None]:
    """(base URL, path of the unix socket or None)."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return "http://controller", parts.path
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            if parts.username is not None:
                raise Invalid(
                    "the address of the controller carries a user name or password, which it has no use for",
                    fix="leave it out; a token comes from KVNET_TOKEN or --token-file",
                )
            return url.rstrip("/"), None
    except ValueError:
        pass  # a broken IPv6 address, a port that is none
    raise Invalid(
        f"{url!r} is not the address of a controller",
        fix="write http://host:port, https://host:port or unix:///path/of/the.sock",
    )


def _transport(base_url: str, uds: str | None) -> httpx2.AsyncHTTPTransport:
    # Reading the certificates of all authorities takes 50 ms, a third of a command's life: only where TLS is spoken.
    speaks_tls = base_url.startswith("https:")
    return httpx2.AsyncHTTPTransport(verify=speaks_tls, uds=uds, limits=httpx2.Limits(max_connections=MAX_CONNECTIONS))


def _part(text: str) -> str:
    """One segment of a path. A slash would reach another resource, because servers decode it before they look."""
    if text in ("", ".", "..") or "/" in text:
        raise Invalid(f"{text!r} is not a name or id", fix="give a name or an id")
    return quote(text, safe=":")


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value or (value == 0 and key == "since")}


def _json(response: httpx2.Response) -> dict[str, Any]:
    if not response.content:
        return {}
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    raise ControllerUnreachable(
        f"{response.url} answers, but not as a kvnet controller does",
        fix="check the address given with --controller or KVNET_CONTROLLER",
    )


def _problem(response: httpx2.Response) -> KvnetError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        return from_problem(problem, status=response.status_code)
    return from_problem(
        {
            "title": response.reason_phrase,
            "detail": f"{response.url} answered {response.status_code} without saying why",
        },
        status=response.status_code,
    )


def _event_data(message: httpx2.ServerSentEvent) -> dict[str, Any]:
    """Raises: RemoteProtocolError if it is not an object; a broken stream is then taken up again."""
    try:
        data = json.loads(message.data) if message.data else {}
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise httpx2.RemoteProtocolError(f"event {message.id} of the stream is damaged")
    return data


def _item(item: Mapping[str, Any]) -> Endpoint | KvnetError:
    if "problem" in item:
        return from_problem(item["problem"], status=item["status"])
    return cast(Endpoint, item["endpoint"])


def _lost(request: httpx2.Request, error: Exception) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the answer to {request.method} {request.url.path} was lost ({str(error) or type(error).__name__})",
        fix="look whether it was done, and repeat it if it was not",
    )
