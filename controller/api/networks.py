"""/v1/networks: networks as a resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Query, Request, Response

from controller.api import render
from controller.api.answers import NetworkOut, Page, PruneOut
from controller.api.bodies import JsonBody
from controller.api.errors import IdempotencyKeyReused
from controller.api.models import NameIn, NetworkIn, NetworkPatchIn
from controller.api.paging import DEFAULT_LIMIT, PageAsked, page
from controller.api.plans import OR_PLAN, DryRun, PlanOut, nothing, planned, unused
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
from controller.cluster import Cluster
from controller.security.host_calls import own_key
from controller.status import Look
from controller.views import Convergence
from kvnet.errors import IdTaken, NotFound
from kvnet.model import Network, Versioned

router = resource_router("networks")
BODY: JsonBody[NetworkIn] = JsonBody(NetworkIn, "NetworkIn")
PATCH: JsonBody[NetworkPatchIn] = JsonBody(
    NetworkPatchIn, "NetworkPatchIn", kinds=("application/merge-patch+json", "application/json")
)
NAME: JsonBody[NameIn] = JsonBody(NameIn, "NameIn")
NETWORK_ID_DIGITS = 12

EXAMPLES = {
    "only_a_name": {"name": "my-net"},
    "own_subnet": {"name": "my-net", "subnets": [{"cidr": "10.1.0.0/24", "gateway": "10.1.0.1"}]},
    "apart_under_dockers_names": {
        "name": "my-net",
        "driver": "bridge",
        "options": {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.bridge.name": "br-app"},
    },
    "of_docker_before_its_name_is_known": {
        "holds": ["0a1b2c3d4e5f"],
        "naming": True,
        "docker": {"options": {"driver": "overlay"}, "host": "h1"},
    },
    "routed": {"name": "my-net", "driver": "routed", "block_prefix_length": 27, "cross_segment": "tunnel"},
    "on_the_physical_network": {
        "name": "lan",
        "driver": "transparent",
        "uplink": "eth1",
        "subnets": [{"cidr": "192.168.7.0/24", "gateway": "192.168.7.1", "range": "192.168.7.128/26"}],
    },
}
PATCH_EXAMPLES = {
    "a_label_and_the_MTU": {"labels": {"team": "red", "old": None}, "mtu": 1400},
    "one_subnet_grows_and_one_is_new": {"subnets": [{"cidr": "10.1.0.0/23"}, {"cidr": "fd00:1::/64"}]},
}


def shown(
    cluster: Cluster, network: Versioned[Network], look: Look | None = None, applied: Convergence | None = None
) -> render.Json:
    """`applied`: what was waited for, in place of what is so now."""
    look, use = look or cluster.statuses.look(), cluster.networks.use(network.value)
    return render.network(network, use, applied or look.applied_of(network.value.id), look.network(network))


@router.post(
    "/networks",
    status_code=201,
    response_model=NetworkOut,
    responses=problems(
        404,
        *WITH_BODY,
        also={200: {"description": OR_PLAN.format("It was there already"), "model": NetworkOut | PlanOut}},
    ),
    openapi_extra=BODY.documented(**EXAMPLES),
    summary="Create a network",
)
async def create_network(
    request: Request, idempotency_key: IdempotencyKey = None, dry_run: DryRun = None, wait: Wait = 0
) -> Response:
    """Without subnets kvnet chooses free ones, that no other network and no host uses.

    Whoever has to know the subnets before there is a network holds them first (POST /v1/holds).
    """
    cluster = service(request).cluster
    asked = await BODY.read(request)
    is_keyed = idempotency_key and not asked.holds
    derived = (
        derived_id("network", "", own_key(principal(request), str(idempotency_key)), NETWORK_ID_DIGITS)
        if is_keyed
        else None
    )
    wanted = asked.request(derived)
    if dry_run:
        who = caller(request)
        return await planned(request, lambda changes: changes.networks.create(wanted, who), unused)
    began = service(request).now()
    is_unknown = wanted.id is None or not _exists(cluster, wanted.id)
    try:
        network = await cluster.networks.create(wanted, caller(request))
    except IdTaken as error:
        if asked.id is None and derived is not None:
            raise reused(error) from error
        raise
    applied = await waited(request, {network.value.id: network.version}, wait)
    # Another replica may have made it before this one heard of it.
    is_new = is_unknown and network.value.created_at >= began
    return created(shown(view(request), network, applied=applied), f"/v1/networks/{network.value.id}", is_new=is_new)


@router.get("/networks", response_model=Page[NetworkOut], responses=problems(), summary="List networks")
async def list_networks(
    request: Request,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    name: Name | None = None,
    driver: Name | None = None,
    label: Annotated[list[str], Query(max_length=16, description="`key` or `key=value`; all must hold.")] = [],  # noqa: B006
) -> Response:
    """In the order of their names."""
    cluster = view(request)
    asked = PageAsked.parse(limit, cursor, {"name": name, "driver": driver, "label": tuple(label) or None})
    is_asked_for_some = name is not None or driver is not None or label
    found = cluster.networks.list()
    if is_asked_for_some:
        found = tuple(
            network
            for network in found
            if (name is None or network.value.name == name)
            and (driver is None or network.value.driver == driver)
            and has_labels(network.value.labels, label)
        )
    look = cluster.statuses.look()
    return render.answer(
        page(found, lambda n: (n.value.name,), asked, cluster.revision, lambda n: shown(cluster, n, look))
    )


@router.get(
    "/networks/{network}",
    response_model=NetworkOut,
    responses=problems(404, also={304: {"description": "You have this version."}}),
    summary="Get a network",
)
async def get_network(request: Request, network: str, if_none_match: IfNoneMatch = None) -> Response:
    """By name or id. The ETag stands for the specification; use, hosts and status are observations beside it."""
    cluster = view(request)
    return entity(shown(cluster, cluster.networks.get(network)), if_none_match)


@router.patch(
    "/networks/{network}",
    response_model=NetworkOut | PlanOut,
    responses=problems(404, 412, *WITH_BODY),
    openapi_extra=PATCH.documented(**PATCH_EXAMPLES),
    summary="Change a living network",
)
async def update_network(
    request: Request, network: str, if_match: IfMatch = None, dry_run: DryRun = None, wait: Wait = 0
) -> Response:
    """A JSON merge patch (RFC 7396); what cannot change while the network lives is refused, each field with its reason.

    Running endpoints keep their addresses. The same patch again changes nothing.
    """
    network = await within(request, network)
    cluster = service(request).cluster
    asked = await PATCH.read(request)
    patch, who, version = asked.patch(), caller(request), wanted_version(if_match)
    if dry_run:
        show = _changed(view(request))
        return await planned(request, lambda changes: changes.updates.update(network, patch, who, version), show)
    made = await cluster.updates.update(network, patch, who, version)
    applied = await waited(request, {made.value.id: made.version}, wait)
    return entity(shown(view(request), made, applied=applied))


@router.post(
    "/networks/{network}/name",
    response_model=NetworkOut,
    responses=problems(404, *WITH_BODY),
    openapi_extra=NAME.documented(as_docker_called_it={"name": "my-net", "labels": {"com.example": "1"}}),
    summary="Name a network that was made without a name",
)
async def name_network(request: Request, network: str, wait: Wait = 0) -> Response:
    """It becomes active. The same name again changes nothing; of several networks with one name exactly one gets it."""
    network = await within(request, network)
    cluster = service(request).cluster
    asked = await NAME.read(request)
    made = await cluster.naming.name(network, asked.request(), caller(request))
    applied = await waited(request, {made.value.id: made.version}, wait)
    return entity(shown(view(request), made, applied=applied))


@router.post(
    "/networks/{network}/peers/{peer}",
    status_code=201,
    response_model=NetworkOut,
    responses=problems(
        404,
        409,
        504,
        also={200: {"description": OR_PLAN.format("They are peers already"), "model": NetworkOut | PlanOut}},
    ),
    summary="Let two networks talk to each other",
)
async def peer_networks(request: Request, network: str, peer: str, dry_run: DryRun = None, wait: Wait = 0) -> Response:
    """In both directions. Answers the first of them. No body is needed. `wait` is for the hosts of both."""
    network = await within(request, network)
    peer = await within(request, peer)
    cluster, who = service(request).cluster, caller(request)
    if dry_run:
        show = _changed(view(request))
        return await planned(request, lambda changes: changes.peering.peer(network, peer, who), lambda r: show(r[0]))
    made, is_new = await cluster.peering.peer(network, peer, who)
    applied = await waited(request, await _both(cluster, network, peer), wait)
    return created(shown(view(request), made, applied=applied), f"/v1/networks/{made.value.id}", is_new=is_new)


@router.delete(
    "/networks/{network}/peers/{peer}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 504, also=DELETED),
    summary="Keep two networks apart again",
)
async def unpeer_networks(
    request: Request, network: str, peer: str, dry_run: DryRun = None, wait: Wait = 0
) -> Response:
    """No error if they are apart already. With `wait` 200, and what was waited for: the hosts of both."""
    network = await within(request, network)
    peer = await within(request, peer)
    who = caller(request)
    if dry_run:
        return await planned(request, lambda changes: changes.peering.unpeer(network, peer, who), nothing)
    cluster = service(request).cluster
    await cluster.peering.unpeer(network, peer, who)
    return await done(request, await _both(cluster, network, peer), wait)


@router.delete(
    "/networks/{network}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 412, 504, also=DELETED),
    summary="Delete a network",
)
async def delete_network(
    request: Request, network: str, if_match: IfMatch = None, dry_run: DryRun = None, wait: Wait = 0
) -> Response:
    """Refused while it has endpoints; the problem names each, its host, and when that was last seen.

    With `wait` 200, when no living host has anything of it any more, or the time is over.
    """
    network = await within(request, network)
    who, version = caller(request), wanted_version(if_match)
    if dry_run:
        return await planned(request, lambda changes: changes.networks.delete(network, who, version), nothing)
    id_, revision = await service(request).cluster.networks.delete(network, who, version)
    return await done(request, {id_: revision}, wait)


@router.post("/networks/prune", response_model=PruneOut, responses=problems(504), summary="Delete unused networks")
async def prune_networks(request: Request, dry_run: bool = False, wait: Wait = 0) -> Response:
    """Deletes every network without endpoints and answers what they were. No body is needed.

    `wait` is until no living host has anything of them any more.
    """
    cluster = service(request).cluster
    seen, sight = view(request), service(request).sight(principal(request))
    look = seen.statuses.look()
    doomed = {n.value.id: shown(seen, n, look) for n in seen.networks.list()}
    shows = (lambda _: True) if sight is None else sight.admits
    pruned = await cluster.networks.prune(caller(request), dry_run, shows)
    gone = {} if dry_run else {n.value.id: cluster.revision for n in pruned}
    applied = await waited(request, gone, wait)
    return render.answer(
        {
            "deleted": [doomed.get(n.value.id) or shown(seen, n) for n in pruned],
            "dry_run": dry_run,
            "applied": None if applied is None else render.waited(applied),
        }
    )


def _changed(cluster: Cluster) -> Callable[[Versioned[Network]], render.Json]:
    """A living network as it would be answered, with what it is used for now."""
    return lambda network: shown(cluster, network)


async def _both(cluster: Cluster, network: str, peer: str) -> dict[str, int]:
    found = [await cluster.networks.fresh(name) for name in (network, peer)]
    return {one.value.id: one.version for one in found}


def reused(error: IdTaken) -> IdempotencyKeyReused:
    return IdempotencyKeyReused.field(
        "/header/Idempotency-Key",
        f"the Idempotency-Key was used for another request: {error.detail}",
        "use a new key for a new request",
    )


def _exists(cluster: Cluster, network_id: str) -> bool:
    try:
        return cluster.networks.get(network_id).value.id == network_id
    except NotFound:
        return False
