"""What a host's credential is good for: which keys it may read through the gateway, and which routes it may call.

Deny by default: what is not named here is refused. Pure: says what has to hold for a read; whether it holds (does the
host take part in that network?) is looked up by `controller.security.participation`. What a host may write is decided
in `host_values`, what it may do to endpoints and networks in `host_calls`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from controller.security.principal import Principal
from kvnet import keys
from kvnet.errors import Forbidden
from kvnet.rules import IDENTIFIER, NAME, NETWORK_ID, shown
from kvnet.security import Grant, Role

FIX = "a host's credential is good for its own keys and the networks that the host takes part in"


class Reach(Enum):
    """What a read takes. FREE: nothing. PART: that the host takes part in the network. NAME: that it may join the
    network of that name. CATALOGUE: the grant `docker`."""

    FREE = "free"
    PART = "part"
    NAME = "name"
    CATALOGUE = "catalogue"


@dataclass(frozen=True, slots=True)
class Read:
    reach: Reach
    network: str = ""


FREE = Read(Reach.FREE)
CATALOGUE = Read(Reach.CATALOGUE)


def of_host(principal: Principal | None) -> Principal | None:
    """The principal if it is a host; None for all others, whom nothing here concerns."""
    return principal if principal is not None and principal.role is Role.HOST else None


# what it may read


def read_of(host: str, key: str) -> Read:
    """
    Raises:
        Forbidden: nobody's but the controllers', or another host's.
    """
    first, _, rest = key.partition("/")
    parts = rest.split("/")
    match first + "/", parts:
        case (keys.META, [name]) if name:
            return FREE
        case (keys.HOSTS, [name]) if NAME.match(name):
            return FREE
        case ((keys.INVENTORY | keys.ALIVE | keys.OBSERVED | keys.RECLAIMS), [name]) if name == host:
            return FREE
        case ((keys.LOCAL | keys.QUESTIONS), [name, id_]) if name == host and IDENTIFIER.match(id_):
            return FREE
        case (keys.NETWORKS, [network]) if NETWORK_ID.match(network):
            return Read(Reach.PART, network)
        case ((keys.ENDPOINTS | keys.BLOCKS), [network, name]) if NETWORK_ID.match(network) and name:
            return Read(Reach.PART, network)
        case (keys.NAMES, [name]) if NAME.match(name):
            return Read(Reach.NAME, name)
    raise refused(host, "read", key)


def list_of(host: str, prefix: str) -> Read:
    """Of exactly these prefixes: a shorter one would show others' keys, and so would a part of a name.

    Raises:
        Forbidden
    """
    if prefix in (keys.META, keys.HOSTS, keys.local_of(host), keys.questions_to(host)):
        return FREE
    if prefix == keys.NETWORKS:
        return CATALOGUE
    for start, end in ((keys.NETWORKS, ""), (keys.ENDPOINTS, "/"), (keys.BLOCKS, "/")):
        network = prefix.removeprefix(start).removesuffix(end)
        if prefix == f"{start}{network}{end}" and NETWORK_ID.match(network):
            return Read(Reach.PART, network)
    raise refused(host, "list", prefix)


# what it may call

_GET, _POST, _PATCH, _DELETE = "GET", "POST", "PATCH", "DELETE"
ROUTES = frozenset(
    {
        (_GET, "/v1/whoami"),
        (_GET, "/v1/version"),
        (_GET, "/v1/status"),  # numbers of things, no names
        (_GET, "/v1/hosts/{host}"),  # itself
        (_GET, "/v1/networks"),
        (_GET, "/v1/networks/{network}"),
        (_GET, "/v1/networks/{network}/endpoints"),
        (_GET, "/v1/networks/{network}/endpoints/{endpoint}"),
        (_POST, "/v1/networks/{network}/endpoints"),
        (_PATCH, "/v1/networks/{network}/endpoints/{endpoint}"),
        (_DELETE, "/v1/networks/{network}/endpoints/{endpoint}"),
        (_GET, "/v1/journal"),
        (_POST, "/v1/certificate"),
        (_POST, "/v1/store/get"),
        (_POST, "/v1/store/list"),
        (_POST, "/v1/store/commit"),
        (_POST, "/v1/store/watch"),
        (_POST, "/v1/store/sessions"),
        (_POST, "/v1/store/sessions/{session_id}/refresh"),
        (_DELETE, "/v1/store/sessions/{session_id}"),
    }
)
OF_DOCKER = frozenset(
    {
        (_GET, "/v1/pools"),
        (_POST, "/v1/holds"),
        (_GET, "/v1/holds/{hold}"),
        (_DELETE, "/v1/holds/{hold}"),
        (_POST, "/v1/networks"),
        (_POST, "/v1/networks/{network}/name"),
        (_DELETE, "/v1/networks/{network}"),
    }
)


def may(principal: Principal, method: str, route: str, path_params: Mapping[str, str]) -> bool:
    """Whether a host may call this at all. What it may call it with is decided where the call is understood."""
    wanted = (_GET if method == "HEAD" else method, route)
    if wanted == (_GET, "/v1/hosts/{host}"):
        return path_params.get("host") == principal.host
    return wanted in ROUTES or (wanted in OF_DOCKER and Grant.DOCKER in principal.grants)


def refused(host: str, what: str, key: str) -> Forbidden:
    return Forbidden(f"host {host} may not {what} {shown(key)}", fix=FIX)
