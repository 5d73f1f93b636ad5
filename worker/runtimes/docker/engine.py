"""The local Docker's API over its unix socket, as much of it as the follower needs, with the worker's own HTTP client.

Which version of the API is spoken is agreed upon with whatever daemon is there; every wait has a bound but that for the
next event. Never called while a call of Docker's is answered, and never repeats a request by itself.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kvnet.http import HttpClient, Lost, NotSent, Target
from worker.runtimes.docker.ports import DRIVER, EngineAway, EngineEvent, EngineNetwork, EngineRefused

OLDEST = (1, 24)
NEWEST = (1, 51)  # what was read of the API; a daemon that no longer speaks it gets its own oldest one
ANSWER_S = 10.0
# Docker calls our plugin for these, and that asks the controller.
CHANGE_S = 60.0
WHAT_IS_FOLLOWED = {"type": ["network", "container"]}


class DockerEngine:
    """`path`: Docker's socket."""

    def __init__(self, path: Path) -> None:
        self._http = HttpClient((Target("docker", path=str(path)),), {"accept": "application/json"})
        self._path = path
        self._prefix = ""

    async def version(self) -> tuple[int, int]:
        """
        Raises:
            EngineAway, EngineRefused: also when the daemon is too old.
        """
        told = _object(await self._ask("GET", "/version"))
        newest, oldest = _version(told.get("ApiVersion")), _version(told.get("MinAPIVersion", "1.24"))
        if newest < OLDEST:
            raise EngineRefused(f"its API is {_dotted(newest)}, and kvnet needs {_dotted(OLDEST)} or newer", 0)
        agreed = max(min(newest, NEWEST), oldest)
        self._prefix = f"/v{_dotted(agreed)}"
        return agreed

    async def identity(self) -> str:
        """The id of Docker's network "none": made once with its memory of networks, and kept there for good."""
        found = _objects(await self._get("/networks", {"driver": ["null"]}))
        return str(found[0].get("Id", "")) if found else ""

    async def networks(self) -> Sequence[EngineNetwork]:
        return [parse_network(plain) for plain in _objects(await self._get("/networks", {"driver": [DRIVER]}))]

    async def network(self, id: str) -> EngineNetwork | None:
        plain = await _unless_absent(self._get(f"/networks/{quote(id, safe='')}"))
        return None if plain is None else parse_network(_object(plain))

    async def create_network(self, body: Mapping[str, Any]) -> str:
        path = f"{await self._prefixed()}/networks/create"
        return str(_object(await self._ask("POST", path, body, timeout_s=CHANGE_S)).get("Id", ""))

    async def remove_network(self, id: str) -> None:
        path = f"{await self._prefixed()}/networks/{quote(id, safe='')}"
        await _unless_absent(self._ask("DELETE", path, timeout_s=CHANGE_S))

    async def containers(self) -> Sequence[Mapping[str, Any]]:
        return _objects(await self._get("/containers/json"))

    async def exited(self) -> Sequence[Mapping[str, Any]]:
        return _objects(await self._get("/containers/json", {"status": ["exited"]}, "all=1&"))

    async def containers_of(self, id: str, name: str) -> Sequence[str]:
        # One that was never started knows its networks by name alone.
        found = _objects(await self._get("/containers/json", {"network": [id, name]}, "all=1&"))
        return [str(plain.get("Id", "")) for plain in found]

    async def listed(self, id: str) -> Mapping[str, Any] | None:
        found = _objects(await self._get("/containers/json", {"id": [id]}, "all=1&"))
        return found[0] if found else None

    async def container(self, id: str, timeout_s: float) -> Mapping[str, Any] | None:
        path = f"{await self._prefixed()}/containers/{quote(id, safe='')}/json"
        plain = await _unless_absent(self._ask("GET", path, timeout_s=timeout_s))
        return None if plain is None else _object(plain)

    async def start_container(self, id: str) -> None:
        path = f"{await self._prefixed()}/containers/{quote(id, safe='')}/start"
        await _unless_absent(self._ask("POST", path, timeout_s=CHANGE_S))

    async def events(self) -> AsyncGenerator[EngineEvent | None, None]:
        """
        Raises:
            EngineAway: the stream is over.
        """
        path = f"{await self._prefixed()}/events?filters={_filters(WHAT_IS_FOLLOWED)}"
        try:
            async with contextlib.aclosing(self._http.stream("GET", path, b"", ANSWER_S, None)) as told:
                async for status, line in told:
                    if status >= 400:
                        raise EngineRefused((line or b"it tells no events").decode(errors="replace"), status)
                    event = None if line is None else _event(line)
                    if line is None or event is not None:
                        yield event
        except (NotSent, Lost) as error:
            raise self._away(error) from error
        raise self._away("it ended the stream of its events")

    async def close(self) -> None:
        await self._http.close()

    async def _prefixed(self) -> str:
        if not self._prefix:
            await self.version()
        return self._prefix

    async def _get(self, path: str, filters: Mapping[str, Sequence[str]] | None = None, more: str = "") -> Any:
        query = f"?{more}filters={_filters(filters)}" if filters else ""
        return await self._ask("GET", f"{await self._prefixed()}{path}{query}")

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = ANSWER_S
    ) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        try:
            reply = await self._http.request(method, path, data, timeout_s)
        except (NotSent, Lost, TimeoutError) as error:
            raise self._away(error) from error
        plain = _decoded(reply.body)
        if reply.status >= 400:
            words = plain.get("message") if isinstance(plain, dict) else None
            raise EngineRefused(str(words or f"status {reply.status}").strip(), reply.status)
        return plain

    def _away(self, why: object) -> EngineAway:
        return EngineAway(f"Docker does not answer at {self._path}: {why}", fix="start it, or name its --docker-api")


def parse_network(plain: Mapping[str, Any]) -> EngineNetwork:
    """From what `GET /networks` and `GET /networks/{id}` answer; where there is nothing, Docker says null."""
    ipam = plain.get("IPAM") or {}
    containers = plain.get("Containers") or {}
    return EngineNetwork(
        id=str(plain.get("Id", "")),
        name=str(plain.get("Name", "")),
        subnets=tuple(str(part["Subnet"]) for part in ipam.get("Config") or () if part.get("Subnet")),
        options=_texts(plain.get("Options")),
        ipam_options=_texts(ipam.get("Options")),
        labels=_texts(plain.get("Labels")),
        internal=bool(plain.get("Internal")),
        attachable=bool(plain.get("Attachable")),
        ipv6=bool(plain.get("EnableIPv6")),
        endpoints={str(known.get("EndpointID", "")): str(id_) for id_, known in containers.items()},
    )


def _event(line: bytes) -> EngineEvent | None:
    plain = _decoded(line)
    if not isinstance(plain, dict) or not isinstance(plain.get("Actor"), dict):
        return None
    actor = plain["Actor"]
    return EngineEvent(
        kind=str(plain.get("Type", "")),
        action=str(plain.get("Action", "")),
        id=str(actor.get("ID", "")),
        attributes=_texts(actor.get("Attributes")),
    )


async def _unless_absent(asked: Awaitable[Any]) -> Any:
    """None where Docker has no such thing."""
    try:
        return await asked
    except EngineRefused as error:
        if error.http != 404:
            raise
        return None


def _texts(plain: Any) -> Mapping[str, str]:
    return {str(key): str(value) for key, value in plain.items()} if isinstance(plain, dict) else {}


def _object(plain: Any) -> Mapping[str, Any]:
    if not isinstance(plain, dict):
        raise EngineRefused("what answers there is not Docker", 0)
    return plain


def _objects(plain: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in plain if isinstance(item, dict)] if isinstance(plain, list) else []


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        return None


def _filters(filters: Mapping[str, Sequence[str]]) -> str:
    return quote(json.dumps(filters, separators=(",", ":")), safe="")


def _version(text: Any) -> tuple[int, int]:
    major, _, minor = str(text).partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise EngineRefused(f"{str(text)[:20]!r} is not a version of Docker's API", 0)
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
