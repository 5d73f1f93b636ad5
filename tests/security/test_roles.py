"""Every way into the API stands behind the table of permissions, and each role may what its name says and no more."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from backends.memory import MemoryStore
from controller.api.guarding import Guard
from controller.app import create_app
from controller.security import hosts
from controller.security.permissions import TABLE, Need, Permission, is_open, need_of
from tests.api.under_test import problem_of
from tests.security.admitted import Guarded

NO_BODY: dict[str, Any] = {}
# Nobody is asked there: files, health, and where credentials are got.
OPEN = {
    ("GET", path)
    for path in ("/", "/livez", "/healthz", "/readyz", "/openapi.json", "/docs", "/docs/{file}", "/dashboard")
} | {
    ("GET", "/dashboard/"),
    ("GET", "/dashboard/{file:path}"),
    ("GET", "/problems/{code}"),
    ("GET", "/v1/ca"),
    ("POST", "/v1/join"),
    ("POST", "/v1/login"),
    ("DELETE", "/v1/login"),
}
READ, OPERATE = Permission.READ, Permission.OPERATE


def routes() -> list[tuple[str, Route]]:
    app = create_app(lambda: pytest.fail("nobody opens a cluster here"), MemoryStore())
    found = []
    for route in app.router.routes:
        assert isinstance(route, Route), route
        found += [(method, route) for method in sorted(route.methods or ()) if method != "HEAD"]
    return found


def test_every_route_stands_behind_the_guard_and_in_the_table() -> None:
    for method, route in routes():
        assert isinstance(route.app, Guard), route.path
        if need_of(method, route.path) is None:
            assert (method, route.path) in OPEN, f"{method} {route.path} is open to all"
        else:
            assert (method, route.path) in TABLE, f"{method} {route.path} is in no row: only an admin may"
            assert isinstance(route.app.needs[method], Need)


def test_the_table_has_no_row_for_what_is_not_there() -> None:
    there = {(method, route.path) for method, route in routes()}
    assert set(TABLE) <= there


def test_reading_never_needs_more_than_viewing_but_for_tokens_and_changing_always_more() -> None:
    for (method, path), need in TABLE.items():
        if path.startswith("/v1/store/"):
            assert need.permission is Permission.HOST
        elif path.startswith("/v1/tokens"):
            assert need.permission is Permission.ADMIN
        elif method == "GET":
            assert need.permission in (Permission.SELF, READ), path
        elif path not in ("/v1/trace", "/v1/certificate"):  # a trace changes nothing
            assert need.permission in (OPERATE, Permission.ADMIN), path


def test_what_is_open_by_its_path_is_open_as_a_route_only() -> None:
    assert not is_open("/v1/joining")
    assert not is_open("/v1/login/")
    assert not is_open("/docs2")
    assert not is_open("//docs/x")


def test_a_route_that_nobody_thought_of_is_an_admins() -> None:
    app = create_app(lambda: pytest.fail("nobody opens a cluster here"), MemoryStore())
    assert need_of("GET", "/v1/something-new") == Need(Permission.ADMIN)
    assert isinstance(app.router.routes[0], APIRoute | Route)


def fill(path: str) -> str:
    known = {
        "{address}": "10.0.0.1",
        "{cidr:path}": "10.0.0.0_24",
        "{network}": "n",
        "{peer}": "m",
        "{endpoint}": "e",
        "{host}": "h1",
    }
    for name, value in known.items():
        path = path.replace(name, value)
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.anyio
async def test_without_a_credential_every_route_refuses_alike(site: Guarded) -> None:
    async with site.client(None) as nobody:
        for method, route in routes():
            if (method, route.path) in OPEN:
                continue
            answer = await nobody.request(method, fill(route.path), json=None if method == "GET" else {})
            problem_of(answer, 401, "unauthenticated")
        for path in ("/v1/nothing", "/nothing", "/v1/tokens/../tokens", "/v1//networks", "/v1/networks/"):
            assert (await nobody.get(path)).status_code == 401, path


@pytest.mark.anyio
async def test_each_role_is_let_through_where_the_table_says_and_nowhere_else(site: Guarded) -> None:
    roles = {
        "viewer": await site.make("v", "viewer"),
        "operator": await site.make("o", "operator"),
        "host": await site.make("w", "host", host="h1"),
        "join": await site.make("j", "join", host="h9"),
        "scoped": await site.make("s", "operator", scope={"team": "a"}),
        "scoped-admin": await site.make("sa", "admin", scope={"team": "a"}),
    }
    for role, token in roles.items():
        async with site.client(token) as client:
            for method, route in routes():
                need = need_of(method, route.path)
                if need is None or route.path in ("/v1/events", "/v1/store/watch") or "prune" in route.path:
                    continue
                answer = await client.request(method, fill(route.path), json=None if method == "GET" else {})
                is_refused = answer.status_code == 403 and answer.json()["code"] == "forbidden"
                assert answer.status_code != 401
                assert is_refused is not _may(role, need, method, route.path), f"{role} {method} {route.path}: {answer}"


def _may(role: str, need: Need, method: str, path: str) -> bool:
    wanted = need.permission
    match role:
        case "viewer":
            return wanted in (Permission.SELF, READ)
        case "operator":
            return wanted in (Permission.SELF, READ, OPERATE)
        case "scoped":
            return need.within and wanted in (Permission.SELF, READ, OPERATE)
        case "scoped-admin":
            return need.within
        case "host":
            if path.startswith("/v1/store/"):
                return True  # what of it is `test_host_store`'s to say
            return wanted is Permission.SELF or (method, path) in hosts.ROUTES
    return False


@pytest.mark.anyio
async def test_a_refusal_says_which_role_is_needed(site: Guarded) -> None:
    async with site.client(await site.make("v", "viewer")) as client:
        told = problem_of(await client.post("/v1/networks", json={"name": "n"}), 403, "forbidden")
        assert (told["role"], told["needed"]) == ("viewer", "operator")
        assert "'v' is a viewer, and this needs operator" in told["detail"]
