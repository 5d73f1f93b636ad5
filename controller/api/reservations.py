"""/v1/networks/{network}/reservations: addresses that are never handed out."""

from __future__ import annotations

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import Page, ReservationOut
from controller.api.bodies import JsonBody
from controller.api.models import ReservationIn
from controller.api.paging import DEFAULT_LIMIT, PageAsked, page
from controller.api.plans import OR_PLAN, PLANNED, DryRun, PlanOut, nothing, planned
from controller.api.routing import (
    WITH_BODY,
    CursorText,
    Limit,
    caller,
    created,
    problems,
    resource_router,
    service,
    view,
    within,
)

router = resource_router("reservations")
BODY: JsonBody[ReservationIn] = JsonBody(ReservationIn, "ReservationIn")


@router.post(
    "/networks/{network}/reservations",
    status_code=201,
    response_model=ReservationOut,
    responses=problems(
        404,
        *WITH_BODY,
        also={200: {"description": OR_PLAN.format("It was there already"), "model": ReservationOut | PlanOut}},
    ),
    openapi_extra=BODY.documented(printer={"name": "printer", "address": "10.1.0.9"}),
    summary="Reserve an address",
)
async def create_reservation(request: Request, network: str, dry_run: DryRun = None) -> Response:
    """The name is the identity within the network: the same reservation again is the same reservation."""
    network = await within(request, network)
    cluster = service(request).cluster
    asked = await BODY.read(request)
    if dry_run:
        wanted, who = asked.request(), caller(request)
        show = render.reservation
        return await planned(request, lambda changes: changes.reservations.create(network, wanted, who), show)
    before = {held.version for held in cluster.reservations.list(network)}
    made = await cluster.reservations.create(network, asked.request(), caller(request))
    location = f"/v1/networks/{made.network}/reservations/{made.name}"
    return created(render.reservation(made), location, is_new=made.version not in before)


@router.get(
    "/networks/{network}/reservations",
    response_model=Page[ReservationOut],
    responses=problems(404),
    summary="List a network's reservations",
)
async def list_reservations(
    request: Request, network: str, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    """In the order of their names; those of the network's specification among them."""
    cluster = view(request)
    asked = PageAsked.parse(limit, cursor, {})
    found = sorted(cluster.reservations.list(network), key=lambda r: (r.name, str(r.address)))
    return render.answer(page(found, lambda r: (r.name, str(r.address)), asked, cluster.revision, render.reservation))


@router.delete(
    "/networks/{network}/reservations/{reservation}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 504, also=PLANNED),
    summary="Release a reservation",
)
async def delete_reservation(request: Request, network: str, reservation: str, dry_run: DryRun = None) -> Response:
    """By name or address."""
    network = await within(request, network)
    who = caller(request)
    if dry_run:
        return await planned(request, lambda changes: changes.reservations.delete(network, reservation, who), nothing)
    await service(request).cluster.reservations.delete(network, reservation, who)
    return Response(status_code=204)
