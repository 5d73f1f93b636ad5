"""One worker as a process: opens everything real, runs until it is told to stop, and lets go in order.

What may refuse (the state directory, the sockets, the kernel) is opened in the order of who can say most plainly what
is missing. Decides nothing about networks: that is `worker.agent`, over ports that tests can stand in for.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

from backends.gateway import GatewayStore
from backends.open import open_store
from backends.store import Store
from backends.url import shown
from kvnet.errors import KvnetError
from kvnet.spans import UNTOLD, Tracer
from worker.agent import Worker
from worker.controller import JOIN_ANEW, HttpController
from worker.disk import StateDir
from worker.identity import KEY, Identity
from worker.keymaking import made_apart
from worker.log import Log
from worker.metrics.http import MetricsServer, bind
from worker.ports import Time
from worker.renewal import Renewal
from worker.server import Server, listen
from worker.settings import DockerMode, Settings
from worker.tidying import Tidying, tune

TOLD_EACH_S = 60.0


class Runs(Protocol):
    """Until cancelled."""

    async def run(self) -> None: ...


async def run_worker(settings: Settings, *, log: Log | None = None, tracer: Tracer = UNTOLD) -> None:
    """Run the worker of this host until SIGTERM or SIGINT.

    Raises:
        KvnetError: it cannot start; says what is missing and what to do.
    """
    log = log or Log()
    tune()
    async with _ports(settings, log, tracer) as (worker, servers):
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        log.info("started", host=settings.host, underlay=_underlay(worker), store=shown(settings.store_url))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part.run()) for part in (worker, *servers)]
            await stop.wait()
            for task in tasks:
                task.cancel()
        log.info("stopped", host=settings.host, detail="the networks stay as they are")


async def _docker_socket(settings: Settings, log: Log) -> socket.socket | None:
    """Open before the store answers, so that a Docker that starts meanwhile waits instead of giving up.

    A host whose Docker cannot be served still has a worker.
    """
    if settings.docker.mode is DockerMode.OFF:
        return None
    from worker.runtimes.docker.http import listen_for_docker

    try:
        return await listen_for_docker(settings.docker.plugin)
    except KvnetError as error:
        log.warning("docker-not-served", detail=error.detail, fix=error.fix)
        return None


def _underlay(worker: Worker) -> str:
    return str(worker.view.own.underlay) if worker.view.own is not None else ""


@contextlib.asynccontextmanager
async def _ports(settings: Settings, log: Log, tracer: Tracer) -> AsyncIterator[tuple[Worker, Sequence[Runs]]]:
    """Everything real, opened in the order of who can refuse most plainly."""
    from worker.kernel.linux import LinuxKernel
    from worker.listeners import HostListeners
    from worker.runtimes.netns import NetworkNamespaces

    time = Time()
    async with contextlib.AsyncExitStack() as stack:
        state = StateDir.open(settings.state_dir)
        stack.callback(state.close)
        listening = await listen(settings.socket)
        stack.callback(settings.socket.unlink, missing_ok=True)
        stack.callback(listening.close)
        scraped = bind(settings.metrics) if settings.metrics else None
        if scraped is not None:
            stack.callback(scraped.close)
        docker = await _docker_socket(settings, log)
        if docker is not None:
            stack.callback(docker.close)
        kernel = await stack.enter_async_context(await LinuxKernel.open())
        # A worker boots without its store, from what it knows; whose sessions ended is for the controllers to see.
        store = await stack.enter_async_context(
            await open_store(
                settings.store_url, must_answer=False, sweeps=False, token=settings.token, trust=settings.trust
            )
        )
        if isinstance(store, GatewayStore):
            store.on_refused = _teller(log, time)
        controller = HttpController(settings.controller, token=settings.token, trust=settings.trust, time=time)
        stack.push_async_callback(controller.close)
        namespaces = NetworkNamespaces(lambda: worker.registration.boot_id)
        listeners = HostListeners(settings.dns)
        worker = Worker(
            settings, store, controller, kernel, namespaces, listeners, state, time=time, log=log, tracer=tracer
        )
        await worker.start()
        if docker is not None:
            worker.serve_docker(docker)
        servers: list[Runs] = [Server(listening, worker.operations(), log=log, tracer=tracer), Tidying(time)]
        if settings.identity is not None and settings.trust.certificate:
            servers.append(_renewal(settings.identity, controller, store, time, log))
        if scraped is not None:
            render = worker.figures.registry.render
            servers.append(MetricsServer(scraped, render, worker.scrape.unready, time=time))
        yield worker, servers


def _renewal(found: Identity, controller: HttpController, store: Store, time: Time, log: Log) -> Runs:
    def show() -> None:
        controller.show(found.trust)
        if isinstance(store, GatewayStore):
            store.show(found.trust)

    return Renewal(found, controller, partial(made_apart, found.directory / KEY), show, time=time, log=log)


def _teller(log: Log, time: Time) -> Callable[[str], None]:
    """Says at once, and then once a while, that this host's credentials are not good any more."""
    told_at = -TOLD_EACH_S

    def tell(why: str) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= TOLD_EACH_S:
            told_at = now
            log.error("credentials-refused", detail=why, fix=JOIN_ANEW)

    return tell
