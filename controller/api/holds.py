"""/v1/holds: subnets that are kept, for a minute, for networks that are about to be made."""

from __future__ import annotations

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import HoldOut, Page
from controller.api.bodies import JsonBody
from controller.api.models import HoldIn
from controller.api.paging import DEFAULT_LIMIT, PageAsked, page
from controller.api.plans import PLANNED, DryRun, nothing, planned
from controller.api.routing import (
    WITH_BODY,
    CursorText,
    Limit,
    Name,
    caller,
    created,
    entity,
    principal,
    problems,
    resource_router,
    service,
)
from controller.security.host_calls import require_own_hold

router = resource_router("holds")
BODY: JsonBody[HoldIn] = JsonBody(HoldIn, "HoldIn")
EXAMPLES = {
    "any_free_one": {"host": "h1"},
    "this_one": {"host": "h1", "cidr": "10.1.0.0/24"},
    "any_IPv6_one_of_a_pool": {"host": "h1", "version": 6, "pool": "lab6"},
}


@router.post(
    "/holds",
    status_code=201,
    response_model=HoldOut,
    responses=problems(404, *WITH_BODY, also=PLANNED),
    openapi_extra=BODY.documented(**EXAMPLES),
    summary="Hold a subnet",
)
async def create_hold(request: Request, dry_run: DryRun = None) -> Response:
    """Keep a subnet for a network that is created within a minute and names the hold; then it is free again.

    A second request is a second hold.
    """
    asked = await BODY.read(request)
    if dry_run:
        wanted, who = asked.request(), caller(request)
        return await planned(request, lambda changes: changes.holds.create(wanted, who), render.hold)
    made = await service(request).cluster.holds.create(asked.request(), caller(request))
    return created(render.hold(made), f"/v1/holds/{made.id}", is_new=True)


@router.get("/holds", response_model=Page[HoldOut], responses=problems(), summary="List holds")
async def list_holds(
    request: Request, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None, host: Name | None = None
) -> Response:
    """Of one host or all, in the order of their ids."""
    cluster = service(request).cluster
    asked = PageAsked.parse(limit, cursor, {"host": host})
    found = cluster.holds.list(host or "")
    return render.answer(page(found, lambda h: (h.id,), asked, cluster.revision, render.hold))


@router.get("/holds/{hold}", response_model=HoldOut, responses=problems(404), summary="Get a hold")
async def get_hold(request: Request, hold: str) -> Response:
    """404 when it is over, or a network has the subnet by now."""
    found = service(request).cluster.holds.get(hold)
    require_own_hold(principal(request), found.host, hold)
    return entity(render.hold(found))


@router.delete(
    "/holds/{hold}",
    status_code=204,
    response_class=Response,
    responses=problems(504, also=PLANNED),
    summary="Release a hold",
)
async def release_hold(request: Request, hold: str, dry_run: DryRun = None) -> Response:
    """No error if there is no such hold any more; a network that has the subnet by now keeps it."""
    who = caller(request)
    if dry_run:
        return await planned(request, lambda changes: changes.holds.release(hold, who), nothing)
    await service(request).cluster.holds.release(hold, who)
    return Response(status_code=204)
