"""/livez, /readyz, /v1/status, /v1/version and the pages behind a problem's `type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query, Request, Response

from controller.api import render
from controller.api.answers import HealthOut, ProblemPage, StatusOut, VersionOut
from controller.api.errors import every_problem
from controller.api.routing import (
    operations_router,
    principal,
    problems,
    resource_router,
    service,
    view,
)
from kvnet import __version__
from kvnet.errors import NotFound
from kvnet.moments import moment
from kvnet.security import Role

router = operations_router()
resources = resource_router("operations")
API = "v1"
MAX_NAMED, MAX_KEY = 5, 80


@router.get("/livez", response_model=HealthOut, summary="Is the process alive?")
async def livez() -> Response:
    """Depends on nothing: restarting the process would not bring a store back."""
    return render.answer({"status": "ok", "checks": []})


@router.get("/healthz", response_model=HealthOut, summary="As /livez", deprecated=True)
async def healthz() -> Response:
    """The older name of /livez."""
    return render.answer({"status": "ok", "checks": []})


@router.get(
    "/readyz",
    response_model=HealthOut,
    responses=problems(also={503: {"description": "Not ready; the checks say why.", "model": HealthOut}}),
    summary="May traffic come?",
)
async def readyz(
    request: Request, verbose: Annotated[str | None, Query(description="List the checks.")] = None
) -> Response:
    """The store answers, and the memory of it is in step. What fails is always listed."""
    checks = await service(request).checks()
    ready = all(check.ok for check in checks)
    listed = [check for check in checks if verbose is not None or not check.ok]
    body = {
        "status": "ok" if ready else "not-ready",
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in listed],
    }
    return render.answer(body, 200 if ready else 503)


@resources.get("/status", response_model=StatusOut, responses=problems(), summary="The cluster at a glance")
async def get_status(request: Request) -> Response:
    """`is_leader`: whether the replica that answers does the upkeep."""
    cluster = view(request)
    status = cluster.status()
    return render.answer(
        {
            "cluster": status.cluster,
            "store": status.store,
            "revision": status.revision,
            "leader": status.leader,
            "is_leader": status.is_leader,
            "replica": status.replica,
            "stale_since": render.moment(status.stale_since),
            "trouble": render.trouble(status.trouble),
            "warnings": [*service(request).warnings, *_damage(cluster.unreadable), *_audit(request)],
            "networks": status.networks,
            "endpoints": status.endpoints,
            "hosts": status.hosts,
            "hosts_alive": status.hosts_alive,
            "pools": status.pools,
            "version": __version__,
        }
    )


def _damage(unreadable: Mapping[str, str]) -> list[dict[str, str]]:
    if not unreadable:
        return []
    keys = sorted(unreadable)
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    told = ", ".join(ascii(key[:MAX_KEY])[1:-1] for key in keys[:MAX_NAMED])
    return [
        {
            "code": "values-unreadable",
            "detail": f"values in the store cannot be read, and are left out: {told}{more}",
            "fix": "'kvnet check' tells what is wrong with each; something else writes into the store",
        }
    ]


def _audit(request: Request) -> list[dict[str, str]]:
    """Not for who sees some networks only: the journal is of all. A host hears that it is so, and nothing of what is in
    it: whoever examines that host asks with its credential."""
    broken = service(request).cluster.vigil.broken
    who = principal(request)
    is_host = who.role is Role.HOST
    if broken is None or (not is_host and service(request).sight(who) is not None):
        return []
    more = f" (and {broken.misfits - 1} more)" if broken.misfits > 1 else ""
    told = "" if is_host else f": {broken.detail}{more}"
    return [
        {
            "code": "audit-broken",
            "detail": f"the journal does not fit its seals since {moment(broken.since)}{told}",
            "fix": "'kvnet audit verify' tells everything; somebody wrote into the store past kvnet",
        }
    ]


@resources.get("/version", response_model=VersionOut, responses=problems(), summary="What runs here")
async def get_version() -> Response:
    """Of the controller and of its API."""
    return render.answer({"version": __version__, "api": API})


@router.get("/problems/{code}", response_model=ProblemPage, responses=problems(404), summary="What a problem means")
async def get_problem(code: str) -> Response:
    """The page behind a problem's `type`."""
    for kind in every_problem():
        if kind.code == code:
            meaning = " ".join((kind.__doc__ or kind.title).split())
            return render.answer({"code": code, "status": kind.status, "title": kind.title, "meaning": meaning})
    raise NotFound(f"there is no problem {code[:80]!r}", fix="see docs/api.md for all of them")
