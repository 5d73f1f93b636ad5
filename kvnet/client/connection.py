"""How a controller is spoken to: requests that are repeated where that does no harm, and answers as what they are.

Repeats a request only where a second one cannot do harm: reads; creations (the caller's or a generated id makes them
the same object); and whatever was certainly not received or not written. A lost answer to anything else is
`OutcomeUnknown`, for the caller to decide. Problems come back as the `KvnetError` class that the controller raised.
Never caches, never prints, never imports the server; environment proxies are not used.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, cast

from kvnet.client.places import address, given, targets_of
from kvnet.errors import ControllerUnreachable, ControllerUntrusted, Invalid, KvnetError, OutcomeUnknown, StoreWentBack
from kvnet.http import HttpClient, Lost, NotSent, Reply, Untrusted
from kvnet.problems import from_problem
from kvnet.tls import NO_TRUST, Trust
from kvnet.wire import Page, Plan

DEFAULT_CONTROLLER = "http://127.0.0.1:7480"
ATTEMPTS = 4
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
MAX_CONNECTIONS = 100
LARGEST_PAGE = 500
MERGE_PATCH = "application/merge-patch+json"

# Codes that promise that nothing was written: a repeat is always safe.
NOT_WRITTEN = frozenset({"store-unavailable", "contention"})
# What a proxy in front of several replicas answers while one of them goes away.
PASSING_STATUS = frozenset({502, 503, 504})


class Transport(Protocol):
    """What carries the requests: `kvnet.http.HttpClient`. Paths are whole, with their query."""

    async def request(
        self, method: str, path: str, body: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Raises: NotSent, Lost."""

    def stream(
        self,
        method: str,
        path: str,
        body: bytes,
        answer_s: float,
        silence_s: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[tuple[int, bytes | None], None]:
        """Raises: NotSent, Lost."""

    async def close(self) -> None: ...


class Connection:
    """A connection to a controller; what there is to ask is in the classes that build on it.

    `trust`: for https, whose certificates are believed, and which is shown.
    `request_id`: what logs and journal are to call all that is asked over it.

    Every method raises the KvnetError that the controller answered with, `ControllerUnreachable` when nobody
    answers, and `OutcomeUnknown` when the answer to a change that must not be repeated was lost.
    """

    def __init__(
        self,
        url: str = DEFAULT_CONTROLLER,
        *,
        token: str = "",
        trust: Trust = NO_TRUST,
        request_id: str = "",
        timeout_s: float = 30.0,
        attempts: int = ATTEMPTS,
        transport: Transport | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = url
        self.attempts = attempts
        self._timeout_s = timeout_s
        self._rng = rng or random.Random()
        self._sleep = sleep
        targets, self._prefix = targets_of(url, trust)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise Invalid("the token has characters that no HTTP header may carry", fix="give it as it was issued")
        headers = {"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        if request_id:
            headers["x-request-id"] = request_id
        self._transport = transport or HttpClient(targets, headers)
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    async def page(self, path: str, query: Mapping[str, Any]) -> Page[Any]:
        answer = await self.request("GET", path, query=given(query))
        return Page(answer["items"], answer.get("next_cursor") or "", answer.get("revision") or 0)

    async def all_of(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Any]:
        cursor = ""
        while True:
            page = await self.page(path, {"limit": LARGEST_PAGE, **query, "cursor": cursor})
            for item in page.items:
                yield item
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def plan(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        version: int | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The same request, and nothing is changed: what would come of it."""
        asked = None if body is None else dict(body)
        whole = {**(query or {}), "dry_run": "plan"}
        return cast(Plan, await self.request(method, path, query=whole, body=asked, version=version, repeatable=True))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        version: int | None = None,
        repeatable: bool = False,
        wait_s: float = 0.0,
        converge_s: float = 0.0,
    ) -> dict[str, Any]:
        """Send it, again if need be. `repeatable`: a second one does no harm even if the first was carried out.

        `wait_s`: how much longer than usual the answer may take. `converge_s`: it is to be answered when all hosts have
        applied it, or after so long.
        """
        repeatable = repeatable or method == "GET"
        timeout_s = self._timeout_s + wait_s + converge_s
        if converge_s:
            query = {**(query or {}), "wait": f"{converge_s:g}"}
        sent = b"" if body is None else json.dumps(body).encode()
        last_start = time.monotonic() + timeout_s
        attempt = 0
        while True:
            attempt += 1
            async with self._turns:
                outcome = await self._try(method, address(path, query), sent, version, timeout_s, repeatable)
            if not isinstance(outcome, KvnetError):
                return outcome
            if attempt >= self.attempts or time.monotonic() >= last_start:
                raise outcome
            await self.pause(attempt)

    async def _try(
        self, method: str, path: str, body: bytes, version: int | None, timeout_s: float, repeatable: bool
    ) -> dict[str, Any] | KvnetError:
        """The answer, or an error after which a repeat does no harm. Raises those after which it might."""
        try:
            reply = await self._transport.request(
                method, self._prefix + path, body, timeout_s, _headers(method, version)
            )
        except Untrusted as error:  # no repeat will change that
            raise self.unreachable(error) from error
        except NotSent as error:
            return self.unreachable(error)
        except Lost as error:
            if repeatable:
                return self.unreachable(error)
            raise _lost(method, path, error) from error
        if reply.status < 400:
            return self._object(reply)
        problem = self._problem(reply)
        if problem.code == StoreWentBack.code:  # an operator ends that, not time
            raise problem
        if problem.code in NOT_WRITTEN or (repeatable and reply.status in PASSING_STATUS):
            return problem
        raise problem

    @asynccontextmanager
    async def opened(self, path: str, silence_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer that does not end, as they come; entered when it has begun.

        Raises:
            NotSent, Lost
            KvnetError: it is refused.
        """
        headers = {"accept": "text/event-stream"}
        stream = self._transport.stream("GET", self._prefix + path, b"", self._timeout_s, silence_s, headers)
        async with aclosing(stream) as told:
            status, _ = await anext(told)
            if status >= 400:
                refusal = [line async for _, line in told if line is not None]
                raise self._problem(Reply(status, b"\n".join(refusal)))
            yield (line async for _, line in told if line is not None)

    async def pause(self, failures: int) -> None:
        """Doubling, with jitter: a crowd of callers that failed together does not come back together."""
        longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * float(2 ** (failures - 1)))
        await self._sleep(longest * self._rng.uniform(0.5, 1.0))

    def unreachable(self, error: Exception) -> ControllerUnreachable:
        reason = str(error) or type(error).__name__
        place, _, rest = reason.partition(": ")
        reason = rest if rest and place in self.url else reason  # it is told already
        if isinstance(error, Untrusted):
            detail = f"no safe connection to the controller at {self.url}: {reason}"
            return ControllerUntrusted(detail, fix=error.fix, context={"controller": self.url})
        return ControllerUnreachable(
            f"no answer from the controller at {self.url}: {reason}",
            fix="start one with 'kvnet controller', or name another with --controller or KVNET_CONTROLLER",
            context={"controller": self.url},
        )

    def _object(self, reply: Reply) -> dict[str, Any]:
        if not reply.body:
            return {}
        answer = _parsed(reply.body)
        if isinstance(answer, dict):
            return answer
        raise ControllerUnreachable(
            f"{self.url} answers, but not as a kvnet controller does",
            fix="check the address given with --controller or KVNET_CONTROLLER",
        )

    def _problem(self, reply: Reply) -> KvnetError:
        problem = _parsed(reply.body)
        if isinstance(problem, dict) and "code" in problem:
            return from_problem(problem, status=reply.status)
        detail = f"{self.url} answered {reply.status} without saying why"
        return from_problem({"title": f"HTTP status {reply.status}", "detail": detail}, status=reply.status)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _headers(method: str, version: int | None) -> dict[str, str]:
    kind = {"content-type": MERGE_PATCH} if method == "PATCH" else {}
    return kind if version is None else {**kind, "if-match": f'"{version}"'}


def _lost(method: str, path: str, error: Exception) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the answer to {method} {path} was lost ({str(error) or type(error).__name__})",
        fix="look whether it was done, and repeat it if it was not",
    )
