"""/v1/store-state: whether the store is believed, and an operator's word that it shall be.

Not under /v1/store/, which is the store gateway between kvnet's own programs.
"""

from __future__ import annotations

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import AcceptedOut, StoreStateOut
from controller.api.bodies import JsonBody
from controller.api.models import AcceptIn
from controller.api.routing import WITH_BODY, caller, problems, resource_router, service

router = resource_router("operations")
BODY: JsonBody[AcceptIn] = JsonBody(AcceptIn, "AcceptIn")


@router.get("/store-state", response_model=StoreStateOut, responses=problems(), summary="Is the store believed?")
async def get_store_state(request: Request) -> Response:
    """What an operator has to look at before accepting a store that went back in time."""
    cluster = service(request).cluster
    status, standing = cluster.status(), cluster.standing
    sentinel, accepted = standing.sentinel, standing.acceptance
    return render.answer(
        {
            "cluster": sentinel.value.id if sentinel is not None else "",
            "revision": status.revision,
            "networks": status.networks,
            "endpoints": status.endpoints,
            "hosts": status.hosts,
            "trouble": render.trouble(status.trouble),
            "accepted": render.accepted(accepted.value) if accepted is not None else None,
        }
    )


@router.post(
    "/store-state/accept",
    response_model=AcceptedOut,
    responses=problems(*WITH_BODY, 412),
    openapi_extra=BODY.documented(what_was_seen={"cluster": "d1f09c1a5b7e2a44", "revision_before": 1042}),
    summary="Accept the store as it is",
)
async def accept_store(request: Request) -> Response:
    """Ends the refusal of changes in all controllers, and the doubt of all hosts. Says what was seen, so that nothing
    else is accepted; a store that is wiped or another cluster's cannot be."""
    asked = await BODY.read(request)
    acceptance = service(request).cluster.acceptance
    return render.answer(
        render.accepted(await acceptance.accept(asked.cluster, asked.revision_before, caller(request)))
    )
