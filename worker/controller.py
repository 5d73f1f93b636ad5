"""What a worker asks of the controller: endpoints and, for Docker, networks, over the store gateway's lean HTTP client.

An attach waits for one of these, and the general client (`kvnet.client`, for people and scripts) takes 1.5 to 3 ms and
14 MB more for it. A creation carries the endpoint's id, so it is repeated when its answer was lost; a removal is not,
and says that its outcome is unknown. Never repeats without a bound and a pause.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

from kvnet.errors import (
    ControllerUnreachable,
    ControllerUntrusted,
    Invalid,
    KvnetError,
    OutcomeUnknown,
    Unauthenticated,
)
from kvnet.http import HttpClient, Lost, NotSent, Reply, Target, Untrusted
from kvnet.problems import from_problem
from kvnet.request import current
from kvnet.tls import NO_TRUST, Trust
from kvnet.wire import Endpoint, EndpointBody, EndpointPatchBody, Hold, HoldBody, NameBody, Network, NetworkBody
from worker.ports import Backoff, Time

ATTEMPTS = 4
ANSWER_S = 30.0
LATEST = 32
READY_S = 2.0
READY = 200
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
# Codes that promise that nothing was written.
NOT_WRITTEN = frozenset({"store-unavailable", "contention", "rate-limited"})
# What a proxy in front of several replicas answers while one of them goes away.
PASSING_STATUS = frozenset({502, 503, 504})
NOT_GOOD = "the controller does not take this host's credential any more"
JOIN_ANEW = "join anew with 'kvnet worker join --replace', then restart this worker; what runs here goes on"


class HttpController:
    """The controller behind a URL (http, https or unix), or whichever answers of several, separated by commas."""

    def __init__(self, url: str, *, token: str = "", trust: Trust = NO_TRUST, time: Time) -> None:
        try:
            targets = Target.parse_all(url, trust)
        except ValueError as error:
            raise Invalid(str(error), fix="for example http://127.0.0.1:7480") from error
        headers = {"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._url = url
        self._http = HttpClient(targets, headers)
        self._time = time

    async def create_endpoint(self, network: str, body: EndpointBody, *, wait_s: float = 0.0) -> Endpoint:
        """`body` names the endpoint's id.

        Raises:
            ControllerUnreachable: nobody answers; it may have been made if that began after the first attempt.
            KvnetError: the problem that the controller answered with.
        """
        path = f"/v1/networks/{_part(network)}/endpoints" + (f"?wait={wait_s:g}" if wait_s else "")
        made = await self._ask("POST", path, json.dumps(body).encode(), ANSWER_S + wait_s, is_repeatable=True)
        return cast(Endpoint, made)

    async def delete_endpoint(self, network: str, endpoint: str, *, version: int | None = None) -> None:
        """
        Raises:
            OutcomeUnknown: the answer was lost.
            ControllerUnreachable, KvnetError: as above; it was not removed.
        """
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        headers = {} if version is None else {"if-match": f'"{version}"'}
        await self._ask("DELETE", path, b"", ANSWER_S, is_repeatable=False, headers=headers)

    async def update_endpoint(self, network: str, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        """
        Raises:
            NotFound: it is gone.
            ControllerUnreachable, KvnetError: as above. The same patch again is the same endpoint.
        """
        path = f"/v1/networks/{_part(network)}/endpoints/{_part(endpoint)}"
        return cast(Endpoint, await self._ask("PATCH", path, _json(body), ANSWER_S, is_repeatable=True))

    async def hold_subnet(self, body: HoldBody) -> Hold:
        """Not repeated after a lost answer, for the second one would be another hold; the first one runs out.

        Raises:
            SubnetTaken: names the network in its context.
            OutcomeUnknown, ControllerUnreachable, KvnetError: as above.
        """
        return cast(Hold, await self._ask("POST", "/v1/holds", _json(body), ANSWER_S, is_repeatable=False))

    async def release_hold(self, hold: str) -> None:
        await self._ask("DELETE", f"/v1/holds/{_part(hold)}", b"", ANSWER_S, is_repeatable=True)

    async def create_network(self, body: NetworkBody) -> Network:
        """`body` has an id, or a hold, which is its id then: so it may be repeated."""
        return cast(Network, await self._ask("POST", "/v1/networks", _json(body), ANSWER_S, is_repeatable=True))

    async def name_network(self, network: str, body: NameBody) -> Network:
        """
        Raises:
            NameTaken: another network has it.
            NotFound: it is gone.
            ControllerUnreachable, KvnetError: as above. The same name again is no error.
        """
        path = f"/v1/networks/{_part(network)}/name"
        return cast(Network, await self._ask("POST", path, _json(body), ANSWER_S, is_repeatable=True))

    async def delete_network(self, network: str) -> None:
        """
        Raises:
            NetworkInUse: it has endpoints.
            OutcomeUnknown, ControllerUnreachable, KvnetError: as above.
        """
        await self._ask("DELETE", f"/v1/networks/{_part(network)}", b"", ANSWER_S, is_repeatable=False)

    async def removed_by(self, network: str, names: Sequence[str]) -> Sequence[str]:
        """Of what the controller tells of the network's latest changes: an older removal is not known."""
        path = f"/v1/journal?network={_part(network)}&limit={LATEST}"
        reply = await self._http.request("GET", path, b"", READY_S)
        items = self._object(reply).get("items") if reply.status == READY else None
        newest: dict[str, str] = {}
        for item in filter(_is_object, items) if isinstance(items, list) else ():
            name = str(item.get("key", "")).rpartition("/")[2]
            newest.setdefault(name, "" if item.get("after") is not None else str(item.get("request_id", "")))
        return [newest.get(name, "") for name in names]

    async def certificate(self, request: str) -> dict[str, Any]:
        """A new one for this host. Raises: ControllerUnreachable, KvnetError. Repeating it does no harm."""
        body = _json({"certificate_request": request})
        return await self._ask("POST", "/v1/certificate", body, ANSWER_S, is_repeatable=True)

    def show(self, trust: Trust) -> None:
        """Raises: CertificateUnusable."""
        self._http.show(trust)

    async def answers(self) -> bool:
        try:
            return (await self._http.request("GET", "/readyz", b"", READY_S)).status == READY
        except (NotSent, Lost):
            return False

    async def close(self) -> None:
        await self._http.close()

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes,
        timeout_s: float,
        *,
        is_repeatable: bool,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = {**_who_asks(), **(headers or {})}
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        for attempt in range(1, ATTEMPTS + 1):
            is_last = attempt == ATTEMPTS
            try:
                reply = await self._http.request(method, path, body, timeout_s, headers)
            except NotSent as error:
                if is_last:
                    raise self._unreachable(error) from error
            except Lost as error:
                if not is_repeatable:
                    raise OutcomeUnknown(
                        f"the answer to {method} {path} was lost ({error})",
                        fix="look whether it was done, and repeat it if it was not",
                    ) from error
                if is_last:
                    raise self._unreachable(error) from error
            else:
                if reply.status < 400:
                    return self._object(reply)
                problem = self._problem(reply)
                passing = reply.status in PASSING_STATUS and is_repeatable
                if is_last or not (passing or problem.code in NOT_WRITTEN):
                    raise problem
            await self._time.sleep(pauses.next(self._time))
        raise AssertionError("the last attempt returns or raises")

    def _object(self, reply: Reply) -> dict[str, Any]:
        plain = _decoded(reply.body) if reply.body else {}
        if isinstance(plain, dict):
            return plain
        raise ControllerUnreachable(
            f"{self._url} answers, but not as a kvnet controller does", fix="check the address given with --controller"
        )

    def _problem(self, reply: Reply) -> KvnetError:
        plain = _decoded(reply.body)
        if isinstance(plain, dict) and plain.get("code") == Unauthenticated.code:
            # Whoever asked this host has no credential to send, and need not have one.
            return from_problem({**plain, "detail": NOT_GOOD, "fix": JOIN_ANEW}, status=reply.status)
        if isinstance(plain, dict) and "code" in plain:
            return from_problem(plain, status=reply.status)
        said = {"detail": f"{self._url} answered {reply.status} without saying why"}
        return from_problem(said, status=reply.status)

    def _unreachable(self, error: Exception) -> ControllerUnreachable:
        kind = ControllerUntrusted if isinstance(error, Untrusted) else ControllerUnreachable
        return kind(
            f"no answer from the controller at {self._url}: {error}",
            fix=error.fix
            if isinstance(error, Untrusted)
            else "start it, or start the worker with the right --controller",
            context={"controller": self._url},
        )


def _who_asks() -> dict[str, str]:
    """So that the journal and the controller's log name the request that this host works for."""
    stamp = current()
    headers = {"x-request-id": stamp.request_id} if stamp.request_id else {}
    return headers | ({"traceparent": stamp.trace} if stamp.trace else {})


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _is_object(plain: Any) -> bool:
    return isinstance(plain, dict)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _part(text: str) -> str:
    """One segment of a path: a name cannot reach another resource."""
    if text in ("", ".", "..") or "/" in text:
        raise Invalid(f"{text!r} is not a name or id", fix="give a name or an id")
    return quote(text, safe=":")
