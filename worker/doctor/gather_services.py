"""Asks what is not on this host, or not the kernel's: clock, store, controller, Docker, state directory, socket.

Every question is bounded in time; a service that does not answer is a finding and never an exception.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backends.store import Store, StoreError
from backends.url import shown
from kvnet import keys
from kvnet.errors import KvnetError
from kvnet.http import HttpClient, Lost, NotSent, Reply, Target
from kvnet.logline import without_secrets
from kvnet.tls import NO_TRUST, Trust
from worker import identity
from worker.doctor.facts import ClockFacts, ControllerFacts, DockerFacts, StateFacts, StoreFacts

ANSWER_S = 5.0
DATE_STEP_S = 1.0  # the header has whole seconds
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
MAX_BODY = 1 << 20
W_OK_X_OK = os.W_OK | os.X_OK


async def ask(url: str, path: str, token: str = "", trust: Trust = NO_TRUST) -> tuple[Reply, float]:
    """One GET, and the seconds it took with its connection. Raises: NotSent, Lost, ValueError, KvnetError."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    client = HttpClient((Target.parse(url, trust),), headers, longest_body=MAX_BODY)
    began = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_S):
            reply = await client.request("GET", path, b"", ANSWER_S)
        return reply, time.monotonic() - began
    except TimeoutError:
        raise Lost(f"no answer within {ANSWER_S:g} s") from None
    finally:
        await client.close()


async def controller(url: str, token: str = "", trust: Trust = NO_TRUST) -> tuple[ControllerFacts, ClockFacts]:
    """Both from one answer: its date is that of the controller's clock. Of several URLs, asked at once, the first that
    answers counts."""
    now = time.time()
    if not url:
        return ControllerFacts(""), clock(now)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_controller(one.strip(), token, trust, now)) for one in url.split(",")]
    tried = [one.result() for one in asking]
    found = next((one for one in tried if one[0].latency_ms is not None), tried[0])
    silent = tuple(facts.url for facts, _ in tried if facts.latency_ms is None and facts is not found[0])
    in_clear = tuple(shown(one.strip()) for one in url.split(",") if token and is_in_clear(one.strip()))
    return replace(found[0], silent=silent, in_clear=in_clear), found[1]


def is_in_clear(url: str) -> bool:
    """Whether others could read on the way what is sent there. Nobody knows where a name will lead."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme != "http" or parts.hostname in (None, "localhost"):
        return False
    try:
        return not ip_address(parts.hostname).is_loopback
    except ValueError:
        return True


async def _controller(url: str, token: str, trust: Trust, now: float) -> tuple[ControllerFacts, ClockFacts]:
    fix = "look at the controller and at the way there: name resolution, route, firewall; --controller says where it is"
    try:
        reply, took_s = await ask(url, "/v1/version", token, trust)
    except (NotSent, Lost, ValueError, KvnetError) as error:
        place, _, reason = str(error).partition(": ")
        told_once = reason if reason and place in url else str(error)
        fix = getattr(error, "fix", "") or fix
        return ControllerFacts(shown(url), problem=without_secrets(told_once), fix=fix), clock(now)
    told = _object(reply.body)
    middle = time.time() - took_s / 2
    offset, uncertainty = _offset(reply.headers.get("date", ""), middle, took_s)
    if reply.status != 200 or "version" not in told:
        problem = str(told.get("detail", f"it answers {reply.status}"))
        found = ControllerFacts(shown(url), problem=problem, fix=str(told.get("fix", fix)))
    else:
        found = ControllerFacts(shown(url), round(1000 * took_s, 1), str(told["version"]))
        status = await _status(url, token, trust)
        found = replace(found, trouble=_trouble(status), warnings=dict(_warnings(status)))
    return found, clock(now, offset, uncertainty)


async def _status(url: str, token: str, trust: Trust) -> dict[str, Any]:
    """Empty where this one may not ask, or nobody answers."""
    try:
        reply, _ = await ask(url, "/v1/status", token, trust)
    except (NotSent, Lost, ValueError, KvnetError):
        return {}
    return _object(reply.body) if reply.status == 200 else {}


def _trouble(status: Mapping[str, Any]) -> str:
    trouble = status.get("trouble")
    return str(trouble.get("detail", "")) if isinstance(trouble, dict) else ""


def _warnings(status: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    warnings = status.get("warnings")
    for one in warnings if isinstance(warnings, list) else ():
        if isinstance(one, dict) and isinstance(one.get("code"), str):
            yield one["code"], (str(one.get("detail", "")), str(one.get("fix", "")))


def _offset(date: str, middle: float, took_s: float) -> tuple[float | None, float]:
    """How far this clock is ahead, and how sure that is."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None, 0.0
    return round(middle - (theirs + DATE_STEP_S / 2), 3), DATE_STEP_S / 2 + took_s / 2


def clock(now: float, offset_s: float | None = None, uncertainty_s: float = 0.0) -> ClockFacts:
    first = time.monotonic()
    return ClockFacts(
        now=now,
        offset_s=offset_s,
        uncertainty_s=uncertainty_s,
        is_synchronised=_is_synchronised(),
        since_boot_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        is_monotonic=time.monotonic() >= first and time.clock_gettime(time.CLOCK_BOOTTIME) >= first - 1.0,
    )


def _is_synchronised() -> bool | None:
    """By adjtimex(2), which changes nothing when asked to change nothing."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, with room
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return None if state < 0 else state != TIME_ERROR


async def store(opened: Store | None, url: str, problem: KvnetError | None = None) -> StoreFacts:
    if problem is not None:
        return StoreFacts(url, problem=problem.detail, fix=problem.fix)
    if opened is None:
        return StoreFacts("")
    began = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_S):
            entry = await opened.get(keys.CLUSTER)
    except (StoreError, KvnetError, OSError, TimeoutError) as error:
        fix = "look at the store's servers and at the way there; 'kvnet store' says what the controllers see"
        return StoreFacts(url, problem=str(error) or f"no answer within {ANSWER_S:g} s", fix=fix)
    return StoreFacts(url, round(1000 * (time.monotonic() - began), 1), has_cluster=entry is not None)


async def docker(is_wanted: bool | None, api: Path, plugin: Path | None) -> DockerFacts:
    if not await asyncio.to_thread(api.exists):
        return DockerFacts(is_wanted, str(api))
    has_plugin = await asyncio.to_thread(plugin.exists) if plugin is not None else None
    try:
        told, _ = await ask(f"unix://{api}", "/version")
        more, _ = await ask(f"unix://{api}", "/info")
    except (NotSent, Lost, ValueError) as error:
        return DockerFacts(is_wanted, str(api), True, has_plugin_socket=has_plugin, problem=str(error))
    version, info = _object(told.body), _object(more.body)
    firewall = info.get("FirewallBackend")
    return DockerFacts(
        is_wanted,
        str(api),
        True,
        str(version.get("Version", "")),
        str(version.get("ApiVersion", "")),
        info.get("LiveRestoreEnabled"),
        str((info.get("Swarm") or {}).get("LocalNodeState", "")),
        has_plugin,
        str(firewall.get("Driver", "")) if isinstance(firewall, dict) else "",
    )


def state(directory: Path | None, socket: Path | None) -> StateFacts:
    mode, owner = _socket_mode(socket)
    told = "" if socket is None else str(socket)
    if directory is None:
        return StateFacts("", socket=told, socket_mode=mode, socket_owner=owner)
    try:
        found = directory.stat()
        room = os.statvfs(directory)
    except FileNotFoundError:
        return StateFacts(str(directory), socket=told, socket_mode=mode, socket_owner=owner)
    except OSError:
        return StateFacts(str(directory), exists=True, socket=told, socket_mode=mode, socket_owner=owner)
    is_writable = None
    if os.geteuid() == 0 or found.st_uid == os.geteuid():
        is_writable = os.access(directory, W_OK_X_OK) and not room.f_flag & os.ST_RDONLY
    facts = StateFacts(
        str(directory),
        True,
        is_writable,
        room.f_bavail * room.f_frsize,
        room.f_favail if room.f_files else None,
        stat.S_IMODE(found.st_mode),
        told,
        mode,
        owner,
    )
    return _with_identity(facts, directory)


def _with_identity(facts: StateFacts, directory: Path) -> StateFacts:
    try:
        found = identity.load(directory)
    except KvnetError as error:
        return replace(facts, identity_problem=error.detail)
    if found is None:
        return facts
    left_s = found.about.expires_at - time.time() if found.about.expires_at else None
    return replace(facts, joined_as=found.about.host, certified_s=left_s)


def _socket_mode(socket: Path | None) -> tuple[int | None, int | None]:
    try:
        found = socket.stat() if socket is not None else None
    except OSError:
        return None, None
    return (stat.S_IMODE(found.st_mode), found.st_uid) if found is not None else (None, None)


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
