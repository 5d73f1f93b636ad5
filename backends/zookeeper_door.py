"""Coming to a ZooKeeper: until somebody answers, and what to tell whoever starts a program when nobody does.

Each way to be refused has its own error. Never tells a secret.
"""

from __future__ import annotations

import asyncio

from backends.store import Refused, StoreError, Unavailable
from backends.tls_probe import distrust
from backends.zookeeper_bridge import Bridge
from kvnet.errors import (
    KvnetError,
    StoreBroken,
    StoreForbidden,
    StoreLoginRefused,
    StoreUnavailable,
    StoreUntrusted,
)

# A server that ends in the middle of a login looks like a refusal.
REFUSALS_AT_THE_DOOR = 2
# Attempts at one address that show that all the others were tried too.
ROUNDS = 2


async def until_answered(bridge: Bridge, timeout_s: float) -> None:
    """Connected and logged in; or every address was tried in vain.

    Raises:
        Unavailable, Refused
    """
    changed = asyncio.Event()
    bridge.listen(changed.set)
    try:
        async with asyncio.timeout(timeout_s):
            while not bridge.is_connected:
                if bridge.refusals >= REFUSALS_AT_THE_DOOR:
                    raise Refused("the credentials are not accepted")
                if any(count > ROUNDS for count in bridge.attempts.values()):
                    raise Unavailable("no server serves")
                await changed.wait()
                changed.clear()
    except TimeoutError:
        raise Unavailable("no server answers") from None
    finally:
        bridge.ignore(changed.set)


async def only_tls(bridge: Bridge) -> StoreUntrusted | None:
    """We came without TLS, and a server that closes on us speaks nothing else: what to tell then."""
    url = bridge.url
    if url.tls is not None:
        return None
    for endpoint in url.endpoints:
        if reason := await distrust(endpoint, None):
            return StoreUntrusted(f"{url}: no connection with {endpoint}: {reason}", fix="say zks:// to speak TLS")
    return None


def at_the_door(bridge: Bridge, error: StoreError | KvnetError) -> KvnetError:
    """What to tell who starts a program, and what to do about it."""
    if isinstance(error, KvnetError):
        return error
    url = bridge.url
    for trouble in reversed(bridge.troubles):
        if trouble.is_trust and isinstance(error, Unavailable):
            return StoreUntrusted(
                f"{url}: no TLS with {trouble.place}: {trouble.reason}",
                fix="compare ?ca= with who signed its certificate, and the host name with the names in it; "
                "?cert= and ?key= with what the server asks for",
            )
    if bridge.refusals:
        return StoreLoginRefused(
            f"{url} does not accept user {url.user!r} with this password (SASL)",
            fix="check user and password against the servers' JAAS file",
        )
    if isinstance(error, Refused):
        doubt = "; a wrong password looks the same to ZooKeeper's digest scheme" if url.user else ""
        who = f"user {url.user!r}" if url.user else "who is not logged in"
        return StoreForbidden(
            f"{url} does not let {who} read and write /{url.root}: {error}{doubt}",
            fix="check the password, and the node's ACL with zkCli.sh: getAcl /" + url.root,
        )
    if isinstance(error, Unavailable):
        reasons = "; ".join(dict.fromkeys(f"{one.place}: {one.reason}" for one in bridge.troubles)) or str(error)
        return StoreUnavailable(f"{url} does not answer: {reasons}", fix="are the servers running, with a quorum?")
    return StoreBroken(f"{url} cannot be used: {error}")
