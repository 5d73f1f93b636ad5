"""What a token that is limited to networks with certain labels may make of them: such networks, and they stay such.

Asked by the use cases, on what is about to be written, so that no way into the labels is forgotten. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from controller.network_rules import no_network
from controller.requests import NetworkRequest
from controller.security.principal import Principal
from controller.security.sight import has_all
from kvnet.errors import Invalid
from kvnet.model import Network
from kvnet.rules import pointer_part


def within_scope(who: Principal | None, request: NetworkRequest) -> NetworkRequest:
    """The request with the labels of who asks.

    Raises:
        Invalid: it asks for other ones.
    """
    if who is None or not who.scope:
        return request
    for key, value in who.scope.items():
        if request.labels.get(key, value) != value:
            raise _outside(who, key)
    return replace(request, labels={**request.labels, **who.scope})


def require_kept(who: Principal | None, before: Network | None, after: Network) -> None:
    """
    Raises:
        NotFound: it is out of sight by now.
        Invalid: it would be from then on.
    """
    if who is None or not who.scope:
        return
    if before is not None and not has_all(before.labels, who.scope):
        raise no_network(before.id)
    for key, value in who.scope.items():
        if after.labels.get(key) != value:
            raise _outside(who, key)


def owner_of(who: Principal | None) -> str:
    """The token, or the one of an issuer's, that what is made now counts for."""
    return "" if who is None else who.account


def _outside(who: Principal, key: str) -> Invalid:
    wanted = who.scope[key]
    return Invalid.field(
        f"/labels/{pointer_part(key)}",
        f"{who.name!r} is limited to networks with the label {key}={wanted}",
        f"it must be {wanted!r}, or left out",
    )
