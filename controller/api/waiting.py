"""`?wait=`: a change is answered when every living host has applied it, or when the time is over.

The same on every change of networks and endpoints. The change itself stands either way; the answer's `applied` says
which hosts were not ready, and which are down and therefore were not waited for. Never waits beyond the word to stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BeforeValidator, WithJsonSchema

from controller.api import render
from controller.api.answers import WaitedOut
from controller.api.plans import PlanOut
from controller.api.routing import principal, service
from controller.views import Convergence

MAX_WAIT_S = 30.0


def _seconds(given: Any) -> Any:
    return MAX_WAIT_S if given == "converged" else given


Wait = Annotated[
    float,
    BeforeValidator(_seconds),
    Query(
        ge=0,
        le=MAX_WAIT_S,
        description="Answer when every living host of the network has applied the change, after so many seconds at "
        "the latest; `converged` is 30.",
    ),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": MAX_WAIT_S}, {"const": "converged"}]}),
]
DELETED: dict[int, dict[str, Any]] = {
    200: {
        "description": "With `wait`: what was waited for. With `dry_run=plan`: what would come of it.",
        "model": WaitedOut | PlanOut,
    }
}


async def waited(request: Request, wanted: Mapping[str, int], wait: float) -> Convergence | None:
    """Wait until each network's living hosts have applied its revision; None if nobody asked to wait."""
    if not wait:
        return None
    shared = service(request)
    convergence = shared.cluster.convergence
    await shared.unless_stopping(convergence.until(wanted, wait), principal(request))
    return convergence.told(wanted)


async def done(request: Request, wanted: Mapping[str, int], wait: float) -> Response:
    """The answer to what leaves nothing to show: 204, or what was waited for."""
    applied = await waited(request, wanted, wait)
    return Response(status_code=204) if applied is None else render.answer({"applied": render.waited(applied)})
