"""/v1/networks/{network}/convergence: how far each host of a network is, and since when it is behind."""

from __future__ import annotations

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import ConvergenceOut
from controller.api.routing import (
    principal,
    problems,
    resource_router,
    service,
    view,
)
from controller.api.waiting import Wait

router = resource_router("networks")


@router.get(
    "/networks/{network}/convergence",
    response_model=ConvergenceOut,
    responses=problems(404),
    summary="Which host has applied what",
)
async def get_convergence(request: Request, network: str, wait: Wait = 0) -> Response:
    """Per host the version wanted and the version applied. With `wait` it is answered when no living host is behind.

    Hosts that are down are shown and not waited for. What they have in their kernel nobody knows.
    """
    shared = service(request)
    cluster = view(request)
    id_ = cluster.networks.get(network).value.id
    if wait:
        until = cluster.convergence.until_converged(lambda: cluster.networks.get(id_), wait)
        await shared.unless_stopping(until, principal(request))
        shared.require_still_good(principal(request))
    return render.answer(render.convergence(cluster.convergence.of(cluster.networks.get(id_))))
