"""From a store URL to a store: the only place that knows which adapters there are.

An adapter is imported only when its URL is opened, so that a worker does not carry what it does not use.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from backends.lease import Clock, Sleep
from backends.store import Store
from kvnet.errors import Invalid, NotSupported

GATEWAY_SCHEMES = {"http", "https", "unix"}
EXTRAS = {
    "etcd": "etcd",
    "etcds": "etcd",
    "consul": "consul",
    "consuls": "consul",
    "zk": "zookeeper",
    "zks": "zookeeper",
}


async def open_store(url: str, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> Store:
    """The store that `url` names, ready to use; close it when done.

    memory://, sqlite:///absolute/path, sqlite:relative/path, http(s)://controller, unix:///controller.sock

    Raises:
        Invalid: not a store URL.
        NotSupported: a store that this kvnet cannot speak to.
        StoreBroken: it is there, but cannot be used.
    """
    scheme, separator, rest = url.partition(":")
    if not separator:
        raise Invalid(f"{url!r} is not a store URL", fix="for example sqlite:///var/lib/kvnet/kvnet.db")
    if scheme == "memory":
        from backends.memory import MemoryStore

        return MemoryStore(clock=clock, sleep=sleep)
    if scheme == "sqlite":
        from backends.sqlite import SqliteStore

        return await SqliteStore.open(_path(url, rest), clock=clock, sleep=sleep)
    if scheme in GATEWAY_SCHEMES:
        from backends.gateway import GatewayStore

        return GatewayStore(url, clock=clock, sleep=sleep)
    if scheme in EXTRAS:
        raise NotSupported(
            f"{scheme}:// needs kvnet[{EXTRAS[scheme]}], and an adapter that this version does not have yet",
            fix="use the embedded store: sqlite:///var/lib/kvnet/kvnet.db",
        )
    raise Invalid(
        f"{url!r}: there is no store called {scheme!r}",
        fix="one of memory://, sqlite:///path, http(s)://controller, unix:///path",
    )


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
