"""`dry_run=plan`: what a change would do to every host, answered by the route that would make it.

Rehearses the change and tells the forecast. Nothing is written, whatever comes of it; what would be refused is refused
here with the same problem.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query, Request, Response
from pydantic import Field

from controller.api import render
from controller.api.answers import Answer
from controller.api.routing import (
    principal,
    view,
)
from controller.cases import Cases
from controller.forecast import Forecast
from controller.security.host_calls import require_no_plan
from controller.status import PLANNED as PLANNED_STATUS
from controller.views import Convergence, NetworkUse
from datapath.objects import NO_FIREWALL, SetFirewall
from datapath.preview import HostPreview
from datapath.words import Told, firewall_changes, tell
from kvnet.model import Network, Versioned

T = TypeVar("T")

MAX_HOSTS = 200

DryRun = Annotated[
    Literal["plan"] | None,
    Query(description="`plan`: nothing is changed; the answer is what every host would do."),
]


class OperationOut(Answer):
    action: str = Field(description="create, change, delete, add, set, remove, announce or forget.")
    kind: str = Field(description="bridge, vxlan, interface, macvlan, shim, address, route, neighbour, fdb, nft, ...")
    target: str
    text: str


class HostPlanOut(Answer):
    host: str
    alive: bool = Field(description="false: it will do this when it returns.")
    operations: list[OperationOut]


class WarningOut(Answer):
    code: str
    detail: str
    host: str | None


class PlanOut(Answer):
    """What would come of the change."""

    dry_run: str
    result: dict[str, Any] | None = Field(description="As it would be answered; null for a deletion.")
    hosts: list[HostPlanOut] = Field(description="Every host for which something changes, in the order of names.")
    more_hosts: int = Field(description="How many more are not shown.")
    operations: int
    on_first_endpoint: HostPlanOut | None = Field(
        description="Of a new network: what a host would do when it gets its first endpoint; until then nothing."
    )
    warnings: list[WarningOut]


OR_PLAN = "{}; or, with `dry_run=plan`, what would come of it."
PLANNED: dict[int, dict[str, Any]] = {
    200: {"description": "With `dry_run=plan`: what would come of it.", "model": PlanOut}
}


async def planned(
    request: Request, action: Callable[[Cases], Awaitable[T]], show: Callable[[T], render.Json | None]
) -> Response:
    """
    Raises:
        Forbidden: a host asks: a plan tells of other hosts.
        KvnetError: what the change itself would raise.
    """
    require_no_plan(principal(request))
    result, forecast = await view(request).rehearse(action)
    return render.answer(_plan(show(result), forecast))


def unused(network: Versioned[Network]) -> render.Json:
    """A network as it would be answered, that nobody uses yet."""
    size = sum(subnet.size for subnet in network.value.subnets)
    return render.network(network, NetworkUse(0, (), 0, size, ()), Convergence(False, ()), PLANNED_STATUS)


def nothing(_: object) -> None:
    """Of a deletion."""


def _plan(result: render.Json | None, forecast: Forecast) -> render.Json:
    hosts = [_host(one, forecast) for one in forecast.hosts[:MAX_HOSTS]]
    first = forecast.first
    return {
        "dry_run": "plan",
        "result": result,
        "hosts": hosts,
        "more_hosts": max(0, len(forecast.hosts) - MAX_HOSTS),
        "operations": sum(len(host["operations"]) for host in hosts),
        "on_first_endpoint": None if first is None else _host(first, forecast),
        "warnings": [{"code": w.code, "detail": w.detail, "host": w.host or None} for w in forecast.warnings],
    }


def _host(one: HostPreview, forecast: Forecast) -> render.Json:
    return {
        "host": one.host,
        "alive": one.host not in forecast.down,
        "operations": [told.as_json() for told in _operations(one)],
    }


def _operations(one: HostPreview) -> Iterator[Told]:
    for operation in one.operations:
        if isinstance(operation, SetFirewall):
            held = one.before.firewall or NO_FIREWALL
            for action, name, element in firewall_changes(operation.firewall, held):
                where = "to" if action == "add" else "from"
                yield Told(action, "nft", name, f"{action} {element} {where} {name}")
        else:
            yield tell(operation)
