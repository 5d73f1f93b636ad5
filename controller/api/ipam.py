"""/v1/ipam: how full everything is, who holds what, and whether it is all consistent."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from fastapi import Query, Request, Response

from controller.api import render
from controller.api.answers import AddressOut, CheckOut, IpamOut, SubnetLookupOut
from controller.api.bodies import JsonBody
from controller.api.models import ReportIn
from controller.api.routing import (
    WITH_BODY,
    caller,
    problems,
    resource_router,
    service,
    view,
)
from controller.parsing import parse_address
from kvnet.errors import Invalid
from kvnet.model import Cidr

router = resource_router("ipam")
REPORT: JsonBody[ReportIn] = JsonBody(ReportIn, "ReportIn", is_optional=True)
EXAMPLE = {
    "revision": 41,
    "findings": [
        {"kind": "orphan", "invariant": "I6", "detail": "names/ghost names a network that is not there",
         "keys": ["names/ghost"], "fix": "the key is removed", "repairable": True}
    ],
}  # fmt: skip


@router.get("/ipam", response_model=IpamOut, responses=problems(), summary="Utilisation")
async def get_utilisation(request: Request) -> Response:
    """Of every pool (with the largest free block) and every network."""
    cluster = view(request)
    use = cluster.ipam.utilisation()
    return render.answer(
        {
            "pools": [render.pool(pool) for pool in use.pools],
            "networks": [
                render.network_use(network, used, cluster.ipam.blocks(network.value)) for network, used in use.networks
            ],
            "revision": cluster.revision,
        }
    )


@router.get(
    "/ipam/addresses/{address}", response_model=AddressOut, responses=problems(), summary="Who has this address?"
)
async def get_address(request: Request, address: str) -> Response:
    """In every network whose subnets contain it; `free` if nobody. An empty list: no network contains it."""
    cluster = view(request)
    wanted = parse_address(address, "/path/address")
    holders = [render.address_holder(holder, cluster) for holder in cluster.ipam.address(wanted)]
    return render.answer({"address": str(wanted), "holders": holders})


@router.get(
    "/ipam/subnets/{cidr:path}",
    response_model=SubnetLookupOut,
    responses=problems(),
    summary="Who holds parts of this block?",
)
async def get_subnet(request: Request, cidr: str) -> Response:
    """Networks, pools and hosts' own routes that overlap it; the slash may be written plainly, as %2F, or as `_`."""
    wanted = _cidr(cidr)
    holders = [
        {"cidr": str(held.cidr), "kind": held.kind, "holder": held.holder, "detail": held.detail}
        for held in view(request).ipam.subnet(wanted)
    ]
    return render.answer({"cidr": str(wanted), "holders": holders})


@router.get("/ipam/check", response_model=CheckOut, responses=problems(), summary="Check the invariants")
async def check_invariants(request: Request) -> Response:
    """Reads the store itself, not the memory of it, and changes nothing."""
    return render.answer(render.check(await service(request).cluster.ipam.check()))


@router.post(
    "/ipam/check",
    response_model=CheckOut,
    responses=problems(412, *WITH_BODY),
    openapi_extra=REPORT.documented(nothing_but_this=EXAMPLE),
    summary="Check, and repair",
)
async def repair_invariants(
    request: Request, repair: Annotated[bool, Query(description="Put right what can be put right safely.")] = False
) -> Response:
    """Each repair is one transaction that checks that nothing moved meanwhile.

    No body is needed. With an earlier answer of this check as the body only what is listed there is repaired, and only
    where nothing that it rests on changed since; what did is left alone, and listed under `changed`.
    """
    ipam = service(request).cluster.ipam
    found = await REPORT.read_if_any(request)
    asked = None if found is None else found.request()
    report = await ipam.repair(caller(request), asked) if repair else await ipam.check()
    return render.answer(render.check(report))


def _cidr(text: str) -> Cidr:
    try:
        return ip_network(text[:64].replace("_", "/"), strict=False)
    except ValueError:
        raise Invalid.field("/path/cidr", f"{text[:64]!r} is not a block of addresses", "like 10.1.0.0/24") from None
