"""/v1/pools: the blocks that automatic subnets are cut from."""

from __future__ import annotations

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import Page, PoolOut
from controller.api.bodies import JsonBody
from controller.api.models import PoolIn
from controller.api.paging import DEFAULT_LIMIT, PageAsked, page
from controller.api.plans import OR_PLAN, PLANNED, DryRun, PlanOut, nothing, planned
from controller.api.routing import (
    WITH_BODY,
    CursorText,
    IfMatch,
    IfNoneMatch,
    Limit,
    caller,
    created,
    entity,
    problems,
    resource_router,
    service,
    view,
    wanted_version,
)
from kvnet.errors import NotFound

router = resource_router("pools")
BODY: JsonBody[PoolIn] = JsonBody(PoolIn, "PoolIn")


@router.post(
    "/pools",
    status_code=201,
    response_model=PoolOut,
    responses=problems(
        *WITH_BODY, also={200: {"description": OR_PLAN.format("It was there already"), "model": PoolOut | PlanOut}}
    ),
    openapi_extra=BODY.documented(class_b={"name": "lab", "cidr": "172.30.0.0/16", "prefix_length": 24}),
    summary="Create a pool",
)
async def create_pool(request: Request, dry_run: DryRun = None) -> Response:
    """The name is the identity: the same pool again is the same pool."""
    cluster = service(request).cluster
    asked = await BODY.read(request)
    if dry_run:
        wanted, who = asked.request(), caller(request)
        return await planned(request, lambda changes: changes.pools.create(wanted, who), render.pool)
    try:
        before = cluster.pools.get(asked.name).version
    except NotFound:
        before = None
    made = await cluster.pools.create(asked.request(), caller(request))
    return created(render.pool(made), f"/v1/pools/{made.pool.name}", is_new=made.version != before)


@router.get("/pools", response_model=Page[PoolOut], responses=problems(), summary="List pools")
async def list_pools(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """In the order of their names."""
    cluster = view(request)
    asked = PageAsked.parse(limit, cursor, {})
    found = sorted(cluster.pools.list(), key=lambda p: p.pool.name)
    return render.answer(page(found, lambda p: (p.pool.name,), asked, cluster.revision, render.pool))


@router.get(
    "/pools/{pool}",
    response_model=PoolOut,
    responses=problems(404, also={304: {"description": "You have this version."}}),
    summary="Get a pool",
)
async def get_pool(request: Request, pool: str, if_none_match: IfNoneMatch = None) -> Response:
    """The ETag stands for the pool's definition, not for how much of it is used."""
    return entity(render.pool(view(request).pools.get(pool)), if_none_match)


@router.delete(
    "/pools/{pool}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 412, 504, also=PLANNED),
    summary="Delete a pool",
)
async def delete_pool(request: Request, pool: str, if_match: IfMatch = None, dry_run: DryRun = None) -> Response:
    """Refused while a network uses a part of it."""
    who, version = caller(request), wanted_version(if_match)
    if dry_run:
        return await planned(request, lambda changes: changes.pools.delete(pool, who, version), nothing)
    await service(request).cluster.pools.delete(pool, who, version)
    return Response(status_code=204)
