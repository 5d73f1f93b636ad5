"""What each way into the API needs: one table, by method and route. What is not in it only an admin may.

`AT_ALL` lists what is open to everybody; the table says, for the rest, which roles may, and whether somebody who sees
only some networks may (`within`): then the handler goes through `sight`, and shows nothing else. Hosts are judged
apart (`hosts`). Pure.
"""

from __future__ import annotations

from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple

from controller.security.principal import Principal
from kvnet.errors import Forbidden
from kvnet.security import Role


class Permission(Enum):
    SELF = auto()  # anybody who is known
    READ = auto()
    OPERATE = auto()
    ADMIN = auto()
    HOST = auto()  # hosts, each its own; and admins


class Need(NamedTuple):
    """`within`: also for a token that is limited to networks by label."""

    permission: Permission
    within: bool = False


SELF = Need(Permission.SELF, within=True)
READ, READ_WITHIN = Need(Permission.READ), Need(Permission.READ, within=True)
OPERATE, OPERATE_WITHIN = Need(Permission.OPERATE), Need(Permission.OPERATE, within=True)
ADMIN = Need(Permission.ADMIN)
HOST = Need(Permission.HOST)

_ROLES = {
    Role.ADMIN: frozenset(Permission),
    Role.OPERATOR: frozenset({Permission.SELF, Permission.READ, Permission.OPERATE}),
    Role.VIEWER: frozenset({Permission.SELF, Permission.READ}),
    Role.HOST: frozenset({Permission.SELF}),
    Role.JOIN: frozenset[Permission](),
}
_NEEDED = {
    Permission.SELF: "any credential",
    Permission.READ: "viewer",
    Permission.OPERATE: "operator",
    Permission.ADMIN: "admin",
    Permission.HOST: "host or admin",
}

_NETWORK, _ENDPOINTS = "/v1/networks/{network}", "/v1/networks/{network}/endpoints"
TABLE = MappingProxyType(
    {
        ("POST", _ENDPOINTS): OPERATE_WITHIN,
        ("GET", _ENDPOINTS): READ_WITHIN,
        ("GET", "/v1/endpoints"): READ_WITHIN,
        ("GET", _ENDPOINTS + "/{endpoint}"): READ_WITHIN,
        ("PATCH", _ENDPOINTS + "/{endpoint}"): OPERATE_WITHIN,
        ("DELETE", _ENDPOINTS + "/{endpoint}"): OPERATE_WITHIN,
        ("POST", "/v1/networks"): OPERATE_WITHIN,
        ("GET", "/v1/networks"): READ_WITHIN,
        ("GET", _NETWORK): READ_WITHIN,
        ("PATCH", _NETWORK): OPERATE_WITHIN,
        ("POST", _NETWORK + "/name"): OPERATE_WITHIN,
        ("POST", _NETWORK + "/peers/{peer}"): OPERATE_WITHIN,
        ("DELETE", _NETWORK + "/peers/{peer}"): OPERATE_WITHIN,
        ("DELETE", _NETWORK): OPERATE_WITHIN,
        ("POST", "/v1/networks/prune"): OPERATE_WITHIN,
        ("GET", _NETWORK + "/convergence"): READ_WITHIN,
        ("POST", "/v1/holds"): OPERATE,
        ("GET", "/v1/holds"): READ,
        ("GET", "/v1/holds/{hold}"): READ,
        ("DELETE", "/v1/holds/{hold}"): OPERATE,
        ("POST", _NETWORK + "/reservations"): OPERATE_WITHIN,
        ("GET", _NETWORK + "/reservations"): READ_WITHIN,
        ("DELETE", _NETWORK + "/reservations/{reservation}"): OPERATE_WITHIN,
        ("GET", "/v1/hosts"): READ_WITHIN,
        ("GET", "/v1/hosts/{host}"): READ_WITHIN,
        ("GET", "/v1/hosts/{host}/ports"): READ_WITHIN,
        ("DELETE", "/v1/hosts/{host}"): ADMIN,
        ("POST", "/v1/pools"): ADMIN,
        ("GET", "/v1/pools"): READ_WITHIN,
        ("GET", "/v1/pools/{pool}"): READ_WITHIN,
        ("DELETE", "/v1/pools/{pool}"): ADMIN,
        ("GET", "/v1/ipam"): READ_WITHIN,
        ("GET", "/v1/ipam/addresses/{address}"): READ_WITHIN,
        ("GET", "/v1/ipam/subnets/{cidr:path}"): READ_WITHIN,
        ("GET", "/v1/ipam/check"): READ,
        ("POST", "/v1/ipam/check"): ADMIN,
        ("GET", "/v1/events"): READ_WITHIN,
        ("GET", "/v1/journal"): READ_WITHIN,
        ("GET", "/v1/audit/seals"): READ,
        ("GET", "/v1/audit/verify"): READ,
        ("GET", "/v1/audit/export"): READ,
        ("GET", "/v1/store-state"): READ,
        ("POST", "/v1/store-state/accept"): ADMIN,
        ("GET", "/v1/upgrade"): READ,
        ("POST", "/v1/upgrade"): ADMIN,
        ("POST", "/v1/connectivity"): OPERATE_WITHIN,
        ("GET", "/v1/hosts/{host}/doctor"): READ,
        ("POST", "/v1/trace"): READ_WITHIN,
        ("POST", "/v1/hosts/{host}/pause"): ADMIN,
        ("DELETE", "/v1/hosts/{host}/pause"): ADMIN,
        ("GET", "/v1/status"): READ_WITHIN,
        ("GET", "/v1/version"): SELF,
        ("GET", "/v1/whoami"): SELF,
        ("GET", "/v1/authentication"): READ_WITHIN,
        ("PUT", "/v1/authentication"): ADMIN,
        ("POST", "/v1/tokens"): ADMIN,
        ("GET", "/v1/tokens"): ADMIN,
        ("GET", "/v1/tokens/{token}"): ADMIN,
        ("DELETE", "/v1/tokens/{token}"): ADMIN,
        ("POST", "/v1/tokens/{token}/rotate"): ADMIN,
        ("GET", "/metrics"): READ,
        ("POST", "/v1/certificate"): HOST,
        ("POST", "/v1/store/get"): HOST,
        ("POST", "/v1/store/list"): HOST,
        ("POST", "/v1/store/commit"): HOST,
        ("POST", "/v1/store/watch"): HOST,
        ("POST", "/v1/store/sessions"): HOST,
        ("POST", "/v1/store/sessions/{session_id}/refresh"): HOST,
        ("DELETE", "/v1/store/sessions/{session_id}"): HOST,
    }
)

# By the path of the request: before it is routed, and whatever it is asked with.
AT_ALL = frozenset(
    {
        *("/", "/livez", "/healthz", "/readyz", "/openapi.json", "/docs", "/dashboard"),
        *("/v1/login", "/v1/join", "/v1/ca"),
    }
)
AT_ALL_BELOW = ("/docs/", "/dashboard/", "/problems/")


def is_open(path: str) -> bool:
    return path in AT_ALL or path.startswith(AT_ALL_BELOW)


def need_of(method: str, route: str) -> Need | None:
    """What a route needs; None if it is open to all."""
    return None if is_open(route) else TABLE.get((method, route), ADMIN)


def require(principal: Principal, need: Need) -> None:
    """Hosts are not judged here.

    Raises:
        Forbidden
    """
    if need.permission not in _ROLES[principal.role]:
        raise Forbidden(
            f"{principal.name!r} is {_article(principal.role)}, and this needs {_NEEDED[need.permission]}",
            fix="ask an admin for a token with that role ('kvnet token create NAME --role ...')",
            context={"role": principal.role.value, "needed": _NEEDED[need.permission]},
        )
    if principal.scope and not need.within:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(principal.scope.items()))
        raise Forbidden(
            f"{principal.name!r} is limited to networks with {labels}, and this is about all",
            fix="ask an admin for a token without a scope",
            context={"role": principal.role.value, "scope": dict(principal.scope)},
        )


def _article(role: Role) -> str:
    return f"{'an' if role.value[0] in 'aeiou' else 'a'} {role}"
