"""/v1/hosts: the machines, as their workers report them. Workers register themselves; here they are seen and removed.

Nothing here makes a host.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response

from controller.api import render
from controller.api.answers import HeldPortsOut, HostOut, Page
from controller.api.endpoints import NetworkNames
from controller.api.paging import DEFAULT_LIMIT, PageAsked, page
from controller.api.plans import PLANNED, DryRun, nothing, planned
from controller.api.routing import (
    CursorText,
    IfNoneMatch,
    Limit,
    caller,
    entity,
    problems,
    resource_router,
    service,
    view,
)
from controller.cluster import Cluster
from controller.status import Look
from controller.views import HostStatus

router = resource_router("hosts")


def shown(cluster: Cluster, names: NetworkNames, look: Look, status: HostStatus) -> render.Json:
    return render.host(status, {network: names.of(network) for network in status.networks}, look.host(status))


@router.get("/hosts", response_model=Page[HostOut], responses=problems(), summary="List hosts")
async def list_hosts(
    request: Request, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None, alive: bool | None = None
) -> Response:
    """In the order of their names."""
    cluster = view(request)
    asked = PageAsked.parse(limit, cursor, {"alive": alive})
    everybody = sorted(cluster.hosts.list(), key=lambda s: s.host.name)
    found = [status for status in everybody if alive is None or status.alive == alive]
    names, look = NetworkNames(cluster), cluster.statuses.look()
    return render.answer(
        page(found, lambda s: (s.host.name,), asked, cluster.revision, lambda s: shown(cluster, names, look, s))
    )


@router.get(
    "/hosts/{host}",
    response_model=HostOut,
    responses=problems(404, also={304: {"description": "You have this version."}}),
    summary="Get a host",
)
async def get_host(request: Request, host: str, if_none_match: IfNoneMatch = None) -> Response:
    """The ETag stands for what the host says of itself; whether it is alive is an observation beside it."""
    cluster = view(request)
    names, look = NetworkNames(cluster), cluster.statuses.look()
    return entity(shown(cluster, names, look, cluster.hosts.get(host)), if_none_match)


@router.get(
    "/hosts/{host}/ports",
    response_model=HeldPortsOut,
    responses=problems(404),
    summary="List a host's published ports",
)
async def list_host_ports(
    request: Request,
    host: str,
    port: Annotated[int | None, Query(ge=1, le=65535, description="Only this host port.")] = None,
    protocol: Literal["tcp", "udp"] | None = None,
) -> Response:
    """Which endpoint has which port of the host, by protocol and number."""
    cluster = view(request)
    held = [
        render.held_port(one)
        for one in cluster.ipam.ports(host)
        if port in (None, one.host_port) and protocol in (None, one.protocol)
    ]
    return render.answer({"items": held, "revision": cluster.revision})


@router.delete(
    "/hosts/{host}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 504, also=PLANNED),
    summary="Remove a host",
)
async def delete_host(
    request: Request,
    host: str,
    force: Annotated[bool, Query(description="Release its endpoints too. Be sure that it is gone for good.")] = False,
    dry_run: DryRun = None,
) -> Response:
    """Refused while it lives or carries endpoints, unless forced."""
    who = caller(request)
    if dry_run:
        return await planned(request, lambda changes: changes.hosts.delete(host, who, force), nothing)
    await service(request).cluster.hosts.delete(host, who, force)
    return Response(status_code=204)
