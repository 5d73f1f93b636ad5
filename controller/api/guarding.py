"""Stands before every route of the application: whoever asks must have what the table of permissions says.

Put around the routes when the application is built, whoever made them: a route that nobody thought of is an admin's.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.security import hosts
from controller.security.permissions import ADMIN, Need, Permission, need_of, require
from controller.security.principal import PRINCIPAL, Principal
from kvnet.errors import Forbidden
from kvnet.security import Role


def guarded(route: BaseRoute) -> BaseRoute:
    """A copy of the route: the modules that made it share theirs between applications."""
    assert isinstance(route, Route), f"{route!r} is no plain route: it would stand open"
    methods = route.methods or set()
    needs = {method: need_of(method, route.path) for method in methods}
    guarded = copy(route)
    guarded.app = Guard(route.app, route.path, needs)
    return guarded


def _require_host(principal: Principal, need: Need, method: str, route: str, path: Mapping[str, str]) -> None:
    """
    Raises:
        Forbidden
    """
    if need.permission is Permission.SELF or hosts.may(principal, method, route, path):
        return
    raise Forbidden(
        f"{principal.name!r} may not do this",
        fix="a host's credential is for its own worker; 'kvnet token create' makes others",
        context={"role": principal.role.value},
    )


class Guard:
    """`needs`: by method; None = open to all."""

    def __init__(self, app: ASGIApp, route: str, needs: dict[str, Need | None]) -> None:
        self.needs = needs
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        need = self.needs.get(scope["method"], ADMIN)
        if need is not None:
            principal: Principal = scope[PRINCIPAL]
            if principal.role is Role.HOST:
                _require_host(principal, need, scope["method"], self._route, scope["path_params"])
            elif principal.role is not Role.ADMIN or principal.scope:
                require(principal, need)
        await self._app(scope, receive, send)
