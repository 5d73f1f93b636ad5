"""From a store URL to a store: the only place that knows which adapters there are.

An adapter is imported only when its URL is opened, so that a worker does not carry what it does not use. Never lets a
secret of a URL into a message.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from typing import Any
from urllib.parse import urlsplit

from backends.lease import Clock, Sleep
from backends.medium import Medium, Sessions
from backends.store import FLOOR, Store
from backends.url import PORTS, ServerUrl, parse_server_url, shown
from kvnet.errors import Invalid, NotSupported
from kvnet.tls import NO_TRUST, Trust

GATEWAY_SCHEMES = {"http", "https", "unix"}
ALL_STORES = (
    "sqlite:///path, etcd://host, consul://host, zk://host (etcds, consuls, zks: over TLS), http(s)://controller, "
    "unix:///path of a controller's socket, memory://"
)


async def open_store(
    url: str,
    *,
    must_answer: bool = True,
    sweeps: bool = True,
    packs: bool = False,
    token: str = "",
    trust: Trust = NO_TRUST,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> Store:
    """The store that `url` names, ready to use; close it when done. What URLs there are: docs/stores.md.

    `must_answer=False`: its servers may be away; until they answer, every call raises `Unavailable`. `sweeps=False`:
    leaves the sessions of the dead to others (of many clients, few need to look). `packs`: a commit may be as large as
    this kind of server takes it (`room_of`), for a `Committer`. `token`, `trust`: for a controller's gateway.

    Raises:
        Invalid: not a store URL.
        NotSupported: a store that this kvnet cannot speak to.
        StoreUnavailable, StoreLoginRefused, StoreForbidden, StoreUntrusted, StoreBroken: why it cannot be used.
    """
    scheme, separator, rest = url.partition(":")
    if not separator:
        raise Invalid(f"{url!r} is not a store URL", fix="for example sqlite:///var/lib/kvnet/kvnet.db")
    if scheme == "memory":
        from backends.memory import MemoryStore

        return MemoryStore(clock=clock, sleep=sleep, rng=rng)
    if scheme == "sqlite":
        from backends.sqlite import SqliteStore

        return await SqliteStore.open(_path(url, rest), clock=clock, sleep=sleep, rng=rng)
    if scheme in GATEWAY_SCHEMES:
        from backends.gateway import GatewayStore

        return GatewayStore(url, token=token or None, trust=trust, clock=clock, sleep=sleep)
    if scheme in PORTS:
        rng = rng or random.Random()
        return await _open_servers(
            parse_server_url(url),
            must_answer=must_answer,
            sweeps=sweeps,
            packs=packs,
            clock=clock,
            sleep=sleep,
            rng=rng,
        )
    raise Invalid(f"{shown(url)!r}: there is no store called {scheme!r}", fix=f"one of {ALL_STORES}")


async def _open_servers(
    url: ServerUrl, *, must_answer: bool, sweeps: bool, packs: bool, clock: Clock, sleep: Sleep, rng: random.Random
) -> Store:
    from backends.followed import FollowedStore
    from backends.stored_sessions import StoredSessions

    adapter = _adapter(url.kind)
    medium: Medium = await adapter.connect(url, must_answer=must_answer, rng=rng)
    sessions: Sessions
    if url.kind == "etcd":
        sessions = adapter.EtcdSessions(medium)
    else:
        sessions = StoredSessions(medium, sweeps=sweeps, clock=clock, sleep=sleep, rng=rng)
    return await FollowedStore.open(
        medium,
        sessions,
        must_answer=must_answer,
        clock=clock,
        sleep=sleep,
        rng=rng,
        room=getattr(adapter, "ROOM", FLOOR) if packs else FLOOR,
    )


def _adapter(kind: str) -> Any:
    try:
        return importlib.import_module(f"backends.{kind}")
    except ImportError as error:
        raise NotSupported(
            f"{kind} stores need kvnet[{kind}], which is not installed here: {error}",
            fix=f"pip install 'kvnet[{kind}]', or use the embedded store: sqlite:///var/lib/kvnet/kvnet.db",
        ) from error


def _path(url: str, rest: str) -> str:
    parts = urlsplit(url)
    if rest.startswith("//") and parts.netloc:
        raise Invalid(
            f"{url!r} names a host; a file has none", fix=f"three slashes: sqlite:///{parts.netloc}{parts.path}"
        )
    # Four slashes, which other programs want for an absolute path, mean the same as three.
    path = "/" + rest.lstrip("/") if rest.startswith("//") else rest
    if path in {"", "/"}:
        raise Invalid(f"{url!r} names no file", fix="for example sqlite:///var/lib/kvnet/kvnet.db")
    return path
