"""Client of the worker's unix socket: how `kvnet attach`, `kvnet plan`, the runtimes and the lab speak to a worker.

One JSON object per line each way, one request per connection; the worker's problems come back as the `KvnetError` that
it raised. Standard library only, because runtime plugins start as a process per container. Never repeats a request:
with a client-chosen id the caller may, and gets the same attachment.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from kvnet.errors import KvnetError, MissingCapability, OutcomeUnknown, WorkerUnreachable
from kvnet.problems import from_problem

DEFAULT_SOCKET = "/run/kvnet/worker.sock"
TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 << 20  # a plan of a large host


def attach_request(
    network: str,
    netns: str,
    name: str,
    *,
    address: str = "",
    address6: str = "",
    mac: str = "",
    aliases: Sequence[str] = (),
    interface: str = "",
    labels: Mapping[str, str] | None = None,
    id: str = "",
    hostname: str = "",
    wait_s: float = 0.0,
    ports: Sequence[Mapping[str, Any]] = (),
    gateway_priority: int = 0,
    reuse: bool = False,
    request_id: str = "",
) -> dict[str, Any]:
    """The request as it goes over the socket; what is empty is left out. `request_id`: as the log is to name it."""
    given = {
        "network": network,
        "netns": netns,
        "name": name,
        "hostname": hostname,
        "address": address,
        "address6": address6,
        "mac": mac,
        "aliases": list(aliases),
        "interface": interface,
        "labels": dict(labels or {}),
        "id": id,
        "wait": wait_s,
        "ports": [dict(port) for port in ports],
        "gateway_priority": gateway_priority,
        "reuse": reuse,
        "request_id": request_id,
    }
    return {"op": "attach", **{key: value for key, value in given.items() if value}}


class WorkerClient:
    """Asks the worker behind a socket.

    Every method raises the `KvnetError` that the worker answered with, `WorkerUnreachable` when nobody answers, and
    `OutcomeUnknown` when the answer to a change was lost.
    """

    def __init__(self, path: str = DEFAULT_SOCKET, *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path
        self._timeout_s = timeout_s

    async def attach(self, network: str, netns: str, name: str, **options: Any) -> dict[str, Any]:
        """Give the namespace an interface on the network; options as in `attach_request`.

        Returns {"endpoint": the endpoint, "interface": its name inside, "netns": path, "timing_ms": {...}}.
        """
        return await self.request(attach_request(network, netns, name, **options))

    async def detach(self, *, id: str = "", name: str = "", netns: str = "", network: str = "") -> dict[str, Any]:
        """Take away every attachment that fits all that is given. Returns {"detached": [ids], "queued": [ids]}."""
        given = {"id": id, "name": name, "netns": netns, "network": network}
        return await self.request({"op": "detach", **{key: value for key, value in given.items() if value}})

    async def status(self) -> dict[str, Any]:
        return await self.request({"op": "status"})

    async def plan(self) -> dict[str, Any]:
        """Returns {"operations": [text], "conflicts": [...]}: what the worker would do now."""
        return await self.request({"op": "plan"})

    async def ask(self, kind: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a controller may ask this host's worker, without a controller or a store."""
        return await self.request({"op": "ask", "kind": kind, "parameters": dict(parameters or {})})

    async def ping(self) -> dict[str, Any]:
        return await self.request({"op": "ping"})

    async def request(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return _result(await self._exchange(_line(message)), self.path)
        except TimeoutError as error:
            raise _silent(self.path, message, self._timeout_s) from error

    async def _exchange(self, line: bytes) -> bytes:
        try:
            reader, writer = await asyncio.open_unix_connection(self.path, limit=MAX_ANSWER_BYTES)
        except OSError as error:
            raise _unreachable(self.path, error) from error
        try:
            writer.write(line)
            await writer.drain()
            return await reader.readline()
        except (OSError, ValueError) as error:
            raise _lost(self.path, error) from error
        finally:
            writer.close()


def request(path: str, message: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The same without an event loop, for a runtime plugin that asks one thing and ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
        except OSError as error:
            raise _unreachable(path, error) from error
        try:
            connection.sendall(_line(message))
            with connection.makefile("rb") as answer:
                return _result(answer.readline(MAX_ANSWER_BYTES), path)
        except TimeoutError as error:
            raise _silent(path, message, timeout_s) from error
        except OSError as error:
            raise _lost(path, error) from error


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _result(line: bytes, path: str) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise _lost(path, EOFError("it closed the connection"))
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise _lost(path, error) from error
    if isinstance(answer, dict) and answer.get("ok") is True and isinstance(answer.get("result"), dict):
        result: dict[str, Any] = answer["result"]
        return result
    problem = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(problem, dict):
        raise _lost(path, ValueError("it does not answer as a kvnet worker does"))
    raise from_problem(problem)


def _unreachable(path: str, error: OSError) -> KvnetError:
    if isinstance(error, PermissionError):
        return MissingCapability(f"the worker's socket {path} may not be used by this user", fix="use root")
    return WorkerUnreachable(
        f"no worker answers at {path}: {error.strerror or error}",
        fix="start one with 'kvnet worker', or name its socket with --socket or KVNET_SOCKET",
        context={"socket": path},
    )


def _silent(path: str, message: Mapping[str, Any], timeout_s: float) -> KvnetError:
    return _lost(path, TimeoutError(f"no answer to {message.get('op')} within {timeout_s:g} s"))


def _lost(path: str, error: Exception) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the answer of the worker at {path} was lost: {error}",
        fix="see 'kvnet status' on this host, and repeat it with the same --id if it was not done",
    )
