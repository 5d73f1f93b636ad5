"""Builds the HTTP application from a cluster and its store. Wiring only: every decision lives elsewhere.

Stateless: any number of these run on one store, and none is special.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from backends.gathered import GatheredCommits
from backends.store import Store
from controller.api import (
    audit,
    convergence,
    diagnosis,
    docs,
    endpoints,
    events,
    health,
    history,
    holds,
    hosts,
    ipam,
    joining,
    login,
    measure,
    metrics,
    networks,
    pools,
    problems,
    reservations,
    store_state,
    tokens,
    trace,
    upgrade,
    web,
    whoami,
)
from controller.api import store as gateway
from controller.api.dispatch import Dispatch
from controller.api.doorman import Doorman
from controller.api.guarding import guarded
from controller.api.middleware import RequestContext
from controller.api.routing import function_name
from controller.api.service import Service
from controller.cluster import Cluster
from controller.security.host_store import Gate
from kvnet import __version__
from kvnet.spans import UNTOLD, Tracer

ClusterFactory = Callable[[], AbstractAsyncContextManager[Cluster]]

# The order is the order of matching: what must be fast comes first.
ROUTERS: tuple[APIRouter, ...] = (
    endpoints.router,
    networks.router,
    convergence.router,
    holds.router,
    reservations.router,
    hosts.router,
    pools.router,
    ipam.router,
    events.router,
    history.router,
    audit.router,
    store_state.router,
    upgrade.router,
    diagnosis.router,
    trace.router,
    tokens.router,
    joining.router,
    login.router,
    whoami.router,
    health.resources,
    health.router,
    metrics.router,
    docs.router,
    web.router,
)


def create_app(
    cluster: Cluster | ClusterFactory,
    store: Store,
    *,
    registry: CollectorRegistry | None = None,
    rng: random.Random | None = None,
    tracer: Tracer = UNTOLD,
    is_insecure: bool = False,
) -> FastAPI:
    """The application; `app.state.service` is what its handlers share.

    An opened cluster stays its owner's; one that a factory makes lives as long as the application does.
    `is_insecure`: everybody may ask from everywhere, until the cluster has tokens.
    `registry`: where the metrics go; give the one that a `MeasuredStore` already counts in.
    """
    registry = registry or measure.new_registry()
    service = Service(store, registry, measure.HttpMetrics(registry), is_insecure=is_insecure)
    registry.register(metrics.ClusterCollector(lambda: service.opened))
    new_id = partial(_new_id, rng or random.Random(random.SystemRandom().getrandbits(128)))
    gathered = GatheredCommits(store, gateway.are_reports)
    app = FastAPI(
        title="kvnet",
        version=__version__,
        description=docs.DESCRIPTION,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=function_name,
        lifespan=partial(_lifespan, service, cluster, gathered),
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.build_middleware_stack = partial(_layers, app, service, new_id, tracer)  # type: ignore[method-assign]
    app.state.service = service
    app.state.doorman = Doorman(service.authenticator, service.failures, service.metrics, new_id, time.perf_counter)
    service.authenticator.from_cookie = partial(_login, service)
    problems.install(app)
    _route(app, gathered, service)
    app.router.routes[:] = [guarded(route) for route in app.router.routes]
    app.openapi = partial(docs.describe, app)  # type: ignore[method-assign]
    return app


def _layers(app: FastAPI, service: Service, new_id: Callable[[], str], tracer: Tracer) -> ASGIApp:
    """What a request passes through, outermost last. FastAPI's own three outer layers (telemetry, a limit for bodies,
    the last resort for errors) do what `RequestContext` does, and took a twentieth of the time of a creation."""
    handlers = {kind: handler for kind, handler in app.exception_handlers.items() if kind not in (500, Exception)}
    return RequestContext(
        ExceptionMiddleware(Dispatch(app.router.routes, AsyncExitStackMiddleware(app.router)), handlers=handlers),
        metrics=service.metrics,
        authenticator=service.authenticator,
        endings=service.endings,
        failures=service.failures,
        new_id=new_id,
        clock=time.perf_counter,
        tracer=tracer,
    )


def _route(app: FastAPI, store: Store, service: Service) -> None:
    for router in ROUTERS:
        # Taken over flat: an included router is matched twice per request.
        app.router.routes.extend(router.routes)
    for route in gateway.router(store, stopping=service.stopping, gate=partial(_gate, service)).routes:
        # A contract between programs of kvnet, described in docs/stores.md and not for others to build on.
        assert isinstance(route, APIRoute)
        route.include_in_schema = False
        app.router.routes.append(route)


def _gate(service: Service) -> Gate | None:
    return service.opened.gate if service.opened is not None else None


def _login(service: Service, scope: Mapping[str, Any]) -> str | None:
    return service.opened.logins.token_in(scope) if service.opened is not None else None


def _new_id(rng: random.Random) -> str:
    """Not from the system's entropy: that call lets go of the interpreter, and the store's thread takes its 5 ms."""
    return f"{rng.getrandbits(64):016x}"


@asynccontextmanager
async def _lifespan(
    service: Service, cluster: Cluster | ClusterFactory, gathered: GatheredCommits, app: FastAPI
) -> AsyncIterator[None]:
    gathering = asyncio.create_task(gathered.run())
    try:
        if isinstance(cluster, Cluster):
            service.opened = cluster
            yield
        else:
            async with cluster() as opened:
                service.opened = opened
                yield
                service.opened = None
    finally:
        gathering.cancel()
        await asyncio.gather(gathering, return_exceptions=True)
