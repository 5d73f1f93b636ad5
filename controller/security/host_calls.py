"""What a host may ask of the API: endpoints of its own, and with the grant `docker` networks of its own making.

Pure: who asks, and what is asked for or was found; the use cases call these where they know that, so that no name, id
or list leads around them. For whoever is no host, nothing here says anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.endpoint_patching import EndpointPatch
from controller.requests import EndpointRequest
from controller.security.hosts import FIX, of_host
from controller.security.principal import Principal
from kvnet.addresses import parse
from kvnet.claims import AddressClaim
from kvnet.errors import Forbidden, NotFound
from kvnet.model import Address, Endpoint, Network, Versioned
from kvnet.rules import shown


def require_own_places(principal: Principal | None, hosts: Iterable[str]) -> None:
    """Endpoints, and holds, of this host and no other; before anything of a list is tried.

    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is None:
        return
    other = next((host for host in hosts if host != asking.host), None)
    if other is not None:
        raise Forbidden(f"host {asking.host} may not act for host {shown(other)}", fix=FIX)


def require_no_plan(principal: Principal | None) -> None:
    """
    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is not None:
        raise Forbidden(f"host {asking.host} may not ask for plans: they tell of other hosts", fix=FIX)


def without_others_rest(request: EndpointRequest, claims: Mapping[Address, Versioned[AddressClaim]]) -> EndpointRequest:
    """An address that cools down is taken at once only by the host that had it: what is still on its way there is not
    for another one."""
    if not request.reuse or _is_own_rest(request.host, (request.address, request.address6), claims):
        return request
    return replace(request, reuse=False)


def without_others_rest_in(
    patch: EndpointPatch, host: str, claims: Mapping[Address, Versioned[AddressClaim]]
) -> EndpointPatch:
    wanted = (patch.given.get("address"), patch.given.get("address6"))
    return patch if not patch.reuse or _is_own_rest(host, wanted, claims) else replace(patch, reuse=False)


def _is_own_rest(host: str, wanted: Iterable[object], claims: Mapping[Address, Versioned[AddressClaim]]) -> bool:
    for text in wanted:
        try:
            claim = claims.get(parse(str(text))) if text is not None else None
        except ValueError:
            return False  # refused elsewhere, with a reason
        if claim is not None and claim.value.host != host:
            return False
    return True


def require_own_endpoint(principal: Principal | None, endpoint: Endpoint) -> None:
    """Of a network that the host takes part in: of others it is not told that they are there.

    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is not None and endpoint.host != asking.host:
        raise Forbidden(f"endpoint {endpoint.id} is not one of host {asking.host}", fix=FIX)


def require_own_network(principal: Principal | None, network: Network) -> None:
    """To name it and to remove it; what it may not even see is not found before this is asked.

    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is None or is_made_by(asking, network):
        return
    raise Forbidden(
        f"network {network.id} was not made by host {asking.host}",
        fix="remove it where it was made, or with 'kvnet network rm' and an operator's token",
    )


def is_made_by(principal: Principal, network: Network) -> bool:
    made_on = network.docker.host if network.docker is not None else ""
    return made_on == principal.host or (bool(principal.token) and network.owner == principal.token)


def require_own_making(principal: Principal | None, made_on: str | None, *, force: bool) -> None:
    """Of a network that a host makes. `made_on`: the host that it is to be noted as made on; None: nothing is noted.

    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is not None and made_on not in (None, "", asking.host):
        raise Forbidden(f"host {asking.host} may not make a network for host {shown(str(made_on))}", fix=FIX)
    require_no_force(principal, force=force)


def require_own_holds(principal: Principal | None, holders: Iterable[str]) -> None:
    """
    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is not None and any(holder != asking.host for holder in holders):
        raise Forbidden(f"host {asking.host} may not use another host's hold", fix=FIX)


def require_own_hold(principal: Principal | None, holder: str, hold: str) -> None:
    """
    Raises:
        NotFound: as if it were not there.
    """
    asking = of_host(principal)
    if asking is not None and holder != asking.host:
        raise NotFound(f"there is no hold {shown(hold)}", fix="it ran out, or a network has its subnet by now")


def require_no_force(principal: Principal | None, *, force: bool) -> None:
    """
    Raises:
        Forbidden
    """
    asking = of_host(principal)
    if asking is not None and force:
        raise Forbidden(f"host {asking.host} may not force a subnet that others use", fix="an operator may")


def own_key(principal: Principal | None, key: str) -> str:
    """An Idempotency-Key, so that nobody can be first with another's: a key has no control characters of its own.

    Those who see alike share theirs.
    """
    asking = of_host(principal)
    if asking is not None:
        return f"{asking.host}\0{key}"
    if principal is None or not principal.scope:
        return key
    scope = "\2".join(f"{name}={value}" for name, value in sorted(principal.scope.items()))
    return f"\1{scope}\0{key}"
