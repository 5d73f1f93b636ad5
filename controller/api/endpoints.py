"""/v1/networks/{network}/endpoints and /v1/endpoints: the hottest paths of the controller.

One endpoint a request, or up to 500; both end in the same use case and differ only in how they are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

from fastapi import Query, Request, Response

from controller.api import render
from controller.api.answers import BulkOut, EndpointOut, Page
from controller.api.bodies import JsonBody
from controller.api.models import EndpointIn, EndpointPatchIn, EndpointsIn, OneOrMany
from controller.api.networks import reused
from controller.api.paging import DEFAULT_LIMIT, PageAsked, page
from controller.api.plans import DryRun, PlanOut, nothing, planned
from controller.api.problems import discreet
from controller.api.routing import (
    WITH_BODY,
    CursorText,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    Limit,
    Name,
    caller,
    created,
    derived_id,
    entity,
    has_labels,
    principal,
    problems,
    resource_router,
    service,
    view,
    wanted_version,
    within,
)
from controller.api.waiting import DELETED, Wait, done, waited
from controller.cases import Cases
from controller.cluster import Cluster
from controller.requests import EndpointRequest
from controller.security.host_calls import own_key
from controller.status import PLANNED as PLANNED_STATUS
from controller.status import Look
from controller.views import Convergence
from kvnet.errors import IdTaken, KvnetError, NotFound
from kvnet.model import Endpoint, Network, Versioned
from kvnet.problems import to_problem

router = resource_router("endpoints")
BODY: JsonBody[EndpointIn | EndpointsIn] = JsonBody(OneOrMany, "EndpointOneOrMany", tags=frozenset({"one", "many"}))
PATCH: JsonBody[EndpointPatchIn] = JsonBody(
    EndpointPatchIn, "EndpointPatchIn", kinds=("application/merge-patch+json", "application/json")
)
ENDPOINT_ID_DIGITS = 16
EXAMPLES = {
    "one": {"host": "h1", "name": "web"},
    "fixed_address": {"host": "h1", "name": "db", "address": "10.1.0.7", "aliases": ["mysql"]},
    "many": {"items": [{"host": "h1", "name": "web-1"}, {"host": "h2", "name": "web-2"}]},
}
PATCH_EXAMPLES = {
    "names": {"name": "web", "aliases": ["www"], "labels": {"team": "red", "old": None}},
    "ports": {"ports": [{"port": 80, "host_port": 8080}]},
    "nothing_is_published_any_more": {"ports": []},
    "another_address": {"address6": "fd00:1::7"},
}


@router.post(
    "/networks/{network}/endpoints",
    status_code=201,
    response_model=EndpointOut,
    responses=problems(
        404,
        *WITH_BODY,
        also={
            200: {
                "description": "A list, answered item by item; one that was there already; or, with `dry_run=plan`, "
                "what would come of it.",
                "model": BulkOut | PlanOut,
            }
        },
    ),
    openapi_extra=BODY.documented(**EXAMPLES),
    summary="Create endpoints",
)
async def create_endpoints(
    request: Request, network: str, wait: Wait = 0, idempotency_key: IdempotencyKey = None, dry_run: DryRun = None
) -> Response:
    """One endpoint (201), or `{"items": [...]}` with up to 500 (200, each item with its own status or problem)."""
    network = await within(request, network)
    cluster = service(request).cluster
    asked = await BODY.read(request)
    net = (await cluster.networks.fresh(network)).value
    if dry_run:
        return await _plan(request, net, asked)
    if isinstance(asked, EndpointsIn):
        return await _create_many(request, cluster, net, asked, wait, idempotency_key)
    return await _create_one(request, cluster, net, asked, wait, idempotency_key)


async def _plan(request: Request, net: Network, asked: EndpointIn | EndpointsIn) -> Response:
    """Of one, or of all of a list together: the first that is refused refuses the plan."""
    who, items = caller(request), asked.items if isinstance(asked, EndpointsIn) else (asked,)

    async def create(changes: Cases) -> list[Versioned[Endpoint]]:
        made = []
        for outcome in await changes.endpoints.create_many(net.id, [item.request() for item in items], who):
            if isinstance(outcome, KvnetError):
                raise outcome
            made.append(outcome)
        return made

    def show(made: list[Versioned[Endpoint]]) -> render.Json:
        shown = [render.endpoint(one, net.name, Convergence(False, ()), PLANNED_STATUS) for one in made]
        return {"items": shown} if isinstance(asked, EndpointsIn) else shown[0]

    return await planned(request, create, show)


async def _create_one(
    request: Request, cluster: Cluster, net: Network, asked: EndpointIn, wait: float, key: str | None
) -> Response:
    derived = derived_id("endpoint", net.id, own_key(principal(request), key), ENDPOINT_ID_DIGITS) if key else None
    wanted = asked.request(derived)
    began = service(request).now()
    is_unknown = wanted.id is None or not _exists(cluster, net.id, wanted.id)
    try:
        endpoint = await cluster.endpoints.create(net.id, wanted, caller(request))
    except IdTaken as error:
        if asked.id is None and derived is not None:
            raise reused(error) from error
        raise
    await waited(request, {net.id: endpoint.version}, wait)
    body = _shown(view(request), endpoint, net)
    # Another replica may have made it before this one heard of it.
    is_new = is_unknown and endpoint.value.created_at >= began
    return created(body, f"/v1/networks/{net.id}/endpoints/{endpoint.value.id}", is_new=is_new)


async def _create_many(
    request: Request, cluster: Cluster, net: Network, asked: EndpointsIn, wait: float, key: str | None
) -> Response:
    key = None if key is None else own_key(principal(request), key)
    wanted = [
        item.request(derived_id("endpoint", net.id, f"{key}\0{place}", ENDPOINT_ID_DIGITS) if key else None)
        for place, item in enumerate(asked.items)
    ]
    known = {request.id for request in wanted if request.id and _exists(cluster, net.id, request.id)}
    who = caller(request)
    began = service(request).now()
    outcomes = await cluster.endpoints.create_many(net.id, wanted, who)
    made = [outcome for outcome in outcomes if isinstance(outcome, Versioned)]
    await waited(request, {net.id: max((one.version for one in made), default=0)}, wait)
    known |= {one.value.id for one in made if one.value.created_at < began}
    items: list[render.Json] = []
    look = view(request).statuses.look()
    for item, request_made, outcome in zip(asked.items, wanted, outcomes, strict=True):
        shown = discreet(request, outcome) if isinstance(outcome, KvnetError) else outcome
        items.append(_outcome(look, net, item, request_made, shown, known, who.request_id))
    return render.answer({"items": items})


def _outcome(
    look: Look,
    network: Network,
    asked: EndpointIn,
    wanted: EndpointRequest,
    outcome: Versioned[Endpoint] | KvnetError,
    known: set[str],
    request_id: str,
) -> render.Json:
    if isinstance(outcome, KvnetError):
        is_key = isinstance(outcome, IdTaken) and asked.id is None and wanted.id is not None
        error = reused(cast(IdTaken, outcome)) if is_key else outcome
        return {"status": error.status, "problem": to_problem(error, instance=request_id)}
    status = 200 if outcome.value.id in known else 201
    return {"status": status, "endpoint": _seen(look, outcome, network)}


@router.get(
    "/networks/{network}/endpoints",
    response_model=Page[EndpointOut],
    responses=problems(404),
    summary="List a network's endpoints",
)
async def list_network_endpoints(
    request: Request,
    network: str,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    host: Name | None = None,
    name: Name | None = None,
    label: Annotated[list[str], Query(max_length=16, description="`key` or `key=value`; all must hold.")] = [],  # noqa: B006
) -> Response:
    """In the order of their names."""
    return _listed(request, limit, cursor, network, host, None, name, label)


@router.get("/endpoints", response_model=Page[EndpointOut], responses=problems(404), summary="List endpoints")
async def list_endpoints(
    request: Request,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    network: Name | None = None,
    host: Name | None = None,
    address: Name | None = None,
    name: Name | None = None,
    label: Annotated[list[str], Query(max_length=16, description="`key` or `key=value`; all must hold.")] = [],  # noqa: B006
) -> Response:
    """Of all networks, in the order of networks' ids and their names; `address` answers who has it."""
    return _listed(request, limit, cursor, network, host, address, name, label)


def _listed(
    request: Request,
    limit: int,
    cursor: str | None,
    network: str | None,
    host: str | None,
    address: str | None,
    name: str | None,
    label: list[str],
) -> Response:
    cluster = view(request)
    filters = {"network": network, "host": host, "address": address, "name": name, "label": tuple(label) or None}
    asked = PageAsked.parse(limit, cursor, filters)
    only = cluster.networks.get(network).value.id if network is not None else None
    found: Sequence[Versioned[Endpoint]] = cluster.endpoints.list(only, host, address)
    if name is not None or label:
        found = [e for e in found if (name is None or e.value.name == name) and has_labels(e.value.labels, label)]
    names, look = NetworkNames(cluster), cluster.statuses.look()
    return render.answer(
        page(
            found,
            lambda e: (e.value.network, e.value.name, e.value.id),
            asked,
            cluster.revision,
            lambda e: render.endpoint(e, names.of(e.value.network), look.applied(e), look.endpoint(e)),
        )
    )


@router.get(
    "/networks/{network}/endpoints/{endpoint}",
    response_model=EndpointOut,
    responses=problems(404, 409, also={304: {"description": "You have this version."}}),
    summary="Get an endpoint",
)
async def get_endpoint(request: Request, network: str, endpoint: str, if_none_match: IfNoneMatch = None) -> Response:
    """By id, or by name if only one has it. The ETag stands for the specification, not for `applied` and `status`."""
    cluster = view(request)
    net = cluster.networks.get(network).value
    return entity(_shown(cluster, cluster.endpoints.get(net.id, endpoint), net), if_none_match)


@router.patch(
    "/networks/{network}/endpoints/{endpoint}",
    response_model=EndpointOut | PlanOut,
    responses=problems(404, 412, *WITH_BODY),
    openapi_extra=PATCH.documented(**PATCH_EXAMPLES),
    summary="Change a living endpoint",
)
async def update_endpoint(
    request: Request, network: str, endpoint: str, if_match: IfMatch = None, dry_run: DryRun = None, wait: Wait = 0
) -> Response:
    """A JSON merge patch (RFC 7396); what cannot change is refused, each field with its reason.

    Its host publishes what it is to publish, and no more, as soon as it hears of it. The same patch again changes
    nothing.
    """
    network = await within(request, network)
    cluster = service(request).cluster
    asked = await PATCH.read(request)
    patch, who, version = asked.patch(), caller(request), wanted_version(if_match)
    if dry_run:

        def show(made: Versioned[Endpoint]) -> render.Json:
            return _shown(view(request), made, cluster.networks.get(made.value.network).value)

        return await planned(
            request, lambda changes: changes.endpoints.update(network, endpoint, patch, who, version), show
        )
    made = await cluster.endpoints.update(network, endpoint, patch, who, version)
    await waited(request, {made.value.network: made.version}, wait)
    return entity(_shown(view(request), made, (await cluster.networks.fresh(made.value.network)).value))


@router.delete(
    "/networks/{network}/endpoints/{endpoint}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 412, 504, also=DELETED),
    summary="Delete an endpoint",
)
async def delete_endpoint(
    request: Request, network: str, endpoint: str, if_match: IfMatch = None, dry_run: DryRun = None, wait: Wait = 0
) -> Response:
    """Its addresses cool down before anybody else gets them.

    With `wait` 200, when no living host knows it any more, or the time is over.
    """
    network = await within(request, network)
    who, version = caller(request), wanted_version(if_match)
    if dry_run:
        return await planned(
            request, lambda changes: changes.endpoints.delete(network, endpoint, who, version), nothing
        )
    network_id, revision = await service(request).cluster.endpoints.delete(network, endpoint, who, version)
    return await done(request, {network_id: revision}, wait)


class NetworkNames:
    """Names of networks by id, looked up once each; an id whose network just went stands for itself."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, str] = {}

    def of(self, network_id: str) -> str:
        name = self._known.get(network_id)
        if name is None:
            name = self._known[network_id] = self._look_up(network_id)
        return name

    def _look_up(self, network_id: str) -> str:
        try:
            return self._cluster.networks.get(network_id).value.name
        except NotFound:
            return network_id


def _shown(cluster: Cluster, endpoint: Versioned[Endpoint], network: Network) -> render.Json:
    return _seen(cluster.statuses.look(), endpoint, network)


def _seen(look: Look, endpoint: Versioned[Endpoint], network: Network) -> render.Json:
    return render.endpoint(endpoint, network.name, look.applied(endpoint), look.endpoint(endpoint))


def _exists(cluster: Cluster, network_id: str, endpoint_id: str) -> bool:
    try:
        return cluster.endpoints.get(network_id, endpoint_id).value.id == endpoint_id
    except KvnetError:  # ambiguous names are not this id either
        return False
