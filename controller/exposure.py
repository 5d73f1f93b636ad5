"""Who can reach a controller, and whether that is meant.

Beyond loopback it listens only in a cluster that asks for tokens, or if somebody said `--insecure`. What the cluster
asks for no option switches off. Looks before anything is written, and again when the cluster is known.
"""

from __future__ import annotations

import ipaddress
import logging
from pathlib import Path
from typing import Protocol

from backends.store import Store, StoreError
from controller.cluster import Cluster
from controller.requests import Caller
from controller.security.first_token import bootstrap
from controller.settings import Settings
from kvnet import keys
from kvnet.errors import InsecureListen

log = logging.getLogger("kvnet.server")


class Exposed(Protocol):
    """What matters here of a server's settings."""

    @property
    def is_insecure(self) -> bool: ...

    @property
    def bootstrap_token(self) -> Path | None: ...

    @property
    def tls(self) -> object | None: ...

    @property
    def cluster(self) -> Settings: ...


class Place(Protocol):
    @property
    def url(self) -> str: ...


def is_beyond_loopback(place: Place) -> bool:
    host = place.url.partition("://")[2].rpartition(":")[0].strip("[]")
    return bool(host) and not ipaddress.ip_address(host.partition("%")[0]).is_loopback


def is_in_clear(settings: Exposed, place: Place) -> bool:
    """Whether tokens can be read on the way."""
    return settings.tls is None and is_beyond_loopback(place)


async def require_meant(store: Store, settings: Exposed, place: Place) -> None:
    """Before anything is written: a store that does not answer yet is looked at later, by `prepare`.

    Raises:
        InsecureListen
    """
    if settings.is_insecure or settings.bootstrap_token is not None or not is_beyond_loopback(place):
        return
    try:
        found = await store.get(keys.AUTHENTICATION)
    except StoreError:
        return
    if found is None:
        raise _insecure(place)


async def prepare(cluster: Cluster, settings: Exposed, place: Place) -> None:
    """The first token, if one was asked for; then who may come in is clear.

    Raises:
        InsecureListen
        KvnetError: of the first token.
    """
    if settings.bootstrap_token is not None:
        caller = Caller(settings.cluster.replica, "", "first start")
        made = await bootstrap(cluster.tokens, settings.bootstrap_token, caller)
        if made is not None:
            await cluster.credentials_reached(made.token.version)
            facts = {"id": made.token.value.id, "file": str(settings.bootstrap_token)}
            log.warning("first-token-made", extra={"facts": facts})
    if not is_beyond_loopback(place):
        return
    if not cluster.credentials.are_required:
        # Another replica may have made the first token a moment ago, and this one's memory has not heard of it yet.
        versions = [token.version for token in await cluster.tokens.list()]
        if versions:
            await cluster.credentials_reached(max(versions))
    if cluster.credentials.are_required:
        if is_in_clear(settings, place):
            detail = f"{place.url} is not encrypted: whoever listens on the way reads the tokens; see --tls-cert"
            log.warning("tokens-in-clear", extra={"facts": {"detail": detail}})
        return
    if not settings.is_insecure:
        raise _insecure(place)
    detail = f"{place.url} has no authentication: whoever reaches this address can change every network"
    log.warning("open-to-all", extra={"facts": {"detail": detail}})


def _insecure(place: Place) -> InsecureListen:
    return InsecureListen(
        f"{place.url} would let everybody who reaches it change every network: this cluster has no tokens yet",
        fix="make the first one: 'kvnet token create NAME --role admin --store URL', or start with "
        "--bootstrap-token-file FILE; if it is meant to be open to all, start with --insecure",
    )
