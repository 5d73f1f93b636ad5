"""What can be wrong with an etcd at start, each case told apart while an operator is looking.

Writes nothing: the permission to write is asked for with a transaction whose condition never holds.
"""

from __future__ import annotations

import asyncio

from backends import etcd_wire as wire
from backends.etcd_errors import Failed, LoginRefused
from backends.etcd_identity import Foreign
from backends.etcd_rpc import Cluster
from backends.store import Refused, StoreError, Unavailable
from backends.tls_probe import distrust
from backends.url import ServerUrl
from kvnet.errors import (
    AnotherCluster,
    KvnetError,
    StoreBroken,
    StoreForbidden,
    StoreLoginRefused,
    StoreUnavailable,
    StoreUntrusted,
)


async def meet(cluster: Cluster, url: ServerUrl, *, must_answer: bool) -> None:
    """Speak to all endpoints; log in; make sure that the root may be read and written.

    Raises:
        StoreUnavailable: nobody answers (no error if not `must_answer`).
        StoreUntrusted, StoreLoginRefused, StoreForbidden, AnotherCluster, StoreBroken, Invalid
    """
    if url.user:
        await asyncio.to_thread(url.secret.read)  # a file that cannot be read is said as such
    outcomes = await asyncio.gather(*(link.reach() for link in cluster.links), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Foreign):
            raise AnotherCluster(f"{url}: {outcome}", fix="name endpoints of one etcd cluster only") from outcome
        if outcome and not isinstance(outcome, Failed):
            raise outcome
    told = [f"{link.name}: {why}" for link, why in zip(cluster.links, outcomes, strict=True) if why]
    if len(told) == len(outcomes):
        await _require_trust(url)
        if must_answer:
            raise _problem(Unavailable("; ".join(told)), url)
        return
    try:
        await cluster.ask(wire.TXN, _never_done(url.root))
    except StoreError as error:
        problem = _problem(error, url)
        if must_answer or not isinstance(problem, StoreUnavailable | StoreBroken):
            raise problem from error


async def _require_trust(url: ServerUrl) -> None:
    """Nobody could be reached: is that for want of trust?"""
    reasons = await asyncio.gather(*(distrust(endpoint, url.tls) for endpoint in url.endpoints))
    for endpoint, reason in zip(url.endpoints, reasons, strict=True):
        if reason:
            raise StoreUntrusted(
                f"{url}: {endpoint} cannot be trusted: {reason}",
                fix="etcds:// with ca=, and with cert= and key= where etcd asks for a certificate; the host must be "
                "named as in etcd's certificate",
            )


def _never_done(root: str) -> wire.Message:
    """etcd asks for the permissions of both branches before it looks at the condition: no key is older than 0."""
    first, end = f"/{root}/".encode(), f"/{root}0".encode()
    return wire.txn(
        [wire.compare_version(first, wire.LESS, 0)],
        [wire.put_op(first + edge, b"") for edge in (b"\0", b"\xff")],
        [wire.get_op(first, end, keys_only=True, limit=1)],
    )


def _problem(error: StoreError, url: ServerUrl) -> KvnetError:
    if isinstance(error, LoginRefused):
        return StoreLoginRefused(
            f"{url}: {error}",
            fix="give the user in the URL and the password in password_file=FILE or KVNET_STORE_PASSWORD_FILE; "
            "'etcdctl user list' shows whom etcd knows",
        )
    if isinstance(error, Refused):
        return StoreForbidden(
            f"{url}: {error}",
            fix=f"etcdctl role grant-permission ROLE readwrite --prefix=true /{url.root}/",
        )
    if isinstance(error, Unavailable):
        return StoreUnavailable(f"{url}: {error}", fix="is etcd running, and reachable from here at these addresses?")
    return StoreBroken(f"{url}: {error}")
