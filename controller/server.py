"""Runs a controller: checks everything that can be wrong first, serves, and stops within a second.

Order of life: sockets are bound, the store is opened, the cluster comes into step, then requests are answered. On the
way down streams are told to end before connections are, because uvicorn waits for open ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from backends.open import open_store
from backends.store import Store, StoreError
from backends.url import shown
from controller import exposure
from controller.api import problems
from controller.api.measure import MeasuredStore, new_registry
from controller.api.patience import Calm, PatientHttp, most_connections
from controller.api.service import Service
from controller.app import create_app
from controller.cluster import Cluster
from controller.listen import BACKLOG, bind_tcp, bind_unix
from controller.security.fetching import fetch
from controller.security.oidc import Oidc
from controller.security.oidc_settings import OidcSettings
from controller.settings import Settings
from kvnet.errors import Invalid, KvnetError, StoreBroken, StoreUnavailable

if TYPE_CHECKING:
    from controller.security.certificates import Certificates, TlsSettings

DEFAULT_LISTEN = "127.0.0.1:7480"
DEFAULT_STORE = "sqlite:///var/lib/kvnet/kvnet.db"
SWITCH_INTERVAL_S = 0.001
START_PAUSE_S = (0.3, 1.0)
CERTIFICATES_LOOKED_AT_S = 5.0
HANDSHAKE_S = 10.0

log = logging.getLogger("kvnet.server")


open_packing = partial(open_store, packs=True)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`listen`: HOST:PORT, [IPv6]:PORT, or a port alone; port 0 takes a free one. "" listens on no TCP port.

    `listen_unix`: a socket file too, for those on this machine who may open it (mode 0600).
    `is_insecure`: everybody may ask from everywhere, as long as the cluster has no tokens.
    `bootstrap_token`: where the first admin's token comes from, or goes to, if the cluster has none.
    `oidc`: whose signed identities are good too.
    `tls`: of what comes over TCP; None = in clear.
    """

    store: str = DEFAULT_STORE
    listen: str = DEFAULT_LISTEN
    listen_unix: Path | None = None
    cluster: Settings = field(default_factory=Settings)
    tls: TlsSettings | None = None
    is_insecure: bool = False
    bootstrap_token: Path | None = None
    oidc: OidcSettings | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the controller can be reached: `url` for TCP ("" if there is none), and the socket file."""

    url: str
    unix: Path | None


def run(settings: ServerSettings, ready: Callable[[Listening], None] | None = None) -> None:
    """`serve` on a fast event loop, until SIGINT or SIGTERM. Tunes the process, which is its own."""
    _tune()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, ready=ready))


def _tune() -> None:
    """Measured on bulk creation: a fifth less time for garbage that is not there, and half the waiting for the store.

    What the controller keeps lives long and has no cycles, so looking through it often finds nothing; and the store's
    thread gives the interpreter back at every call into SQLite, then waits a switch interval to get it again.
    """
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


async def serve(
    settings: ServerSettings,
    *,
    ready: Callable[[Listening], None] | None = None,
    stop: asyncio.Event | None = None,
    opener: Callable[[str], Awaitable[Store]] = open_packing,
) -> None:
    """Serve until `stop` is set, SIGINT or SIGTERM comes; calls `ready` when requests are answered.

    Raises:
        PortInUse, MissingCapability, Invalid: the listen address; nothing was started.
        CertificateUnusable: what TLS was to be spoken with; nothing was started.
        StoreUnavailable: the store did not answer within `start_timeout_s`; nothing is listening any more.
        InsecureListen: everybody could ask from elsewhere, and nobody said that this is meant.
        KvnetError: the store, as its class says; nothing was written, and nothing is listening any more.
    """
    stop = stop or asyncio.Event()
    certificates = _certificates(settings)
    with contextlib.ExitStack() as held:
        calm = Calm(settings.cluster.clock.monotonic)
        logging.getLogger("uvicorn.error").addFilter(calm)
        held.callback(logging.getLogger("uvicorn.error").removeFilter, calm)
        sockets = [held.enter_context(sock) for sock in _bind(settings)]
        if settings.listen_unix is not None:
            held.callback(settings.listen_unix.unlink, missing_ok=True)
        registry = new_registry()
        async with await _opened(settings, opener) as opened:
            store = MeasuredStore(opened, registry)
            listening = _listening(settings, sockets)
            await exposure.require_meant(store, settings, listening)
            async with Cluster.open(store, _named(settings)) as cluster:
                await exposure.prepare(cluster, settings, listening)
                app = create_app(
                    cluster,
                    store,
                    registry=registry,
                    tracer=settings.cluster.tracer,
                    is_insecure=settings.is_insecure,
                )
                service: Service = app.state.service
                service.opened, service.certificates = cluster, certificates
                if certificates is not None:
                    cluster.joining.signer = certificates.signer
                server = _Server(_config(app), service)
                service.authenticator.verifier = _verifier(settings)
                service.is_in_clear = exposure.is_in_clear(settings, listening)
                with _signals(stop, certificates):
                    await _until_stopped(server, sockets, stop, lambda: _started(listening, ready))


def _certificates(settings: ServerSettings) -> Certificates | None:
    if settings.tls is None:
        return None
    from controller.security.certificates import Certificates

    return Certificates(settings.tls, settings.cluster.clock.now)


def _verifier(settings: ServerSettings) -> Oidc | None:
    """Raises: Unfit: the library is not there."""
    if settings.oidc is None:
        return None
    clock = settings.cluster.clock
    return Oidc(settings.oidc, fetch, clock.now, clock.monotonic)


def _named(settings: ServerSettings) -> Settings:
    kind = settings.cluster.store_kind or settings.store.partition(":")[0]
    return replace(settings.cluster, store_kind=kind)


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=PatientHttp,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Nobody's word is taken for where a request comes from; it goes into the journal.
        proxy_headers=False,
        date_header=True,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        backlog=BACKLOG,
    )


class _Server(uvicorn.Server):
    """Tells the streams to end before it waits for their connections, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.certificates = service.certificates
        self.is_started = asyncio.Event()
        self._most = most_connections()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The application first; then, other than uvicorn, TLS on what is TCP only: a socket file needs none."""
        await super().startup([])
        loop, certificates = asyncio.get_running_loop(), self.certificates
        for sock in sockets or ():
            is_safe = certificates is not None and sock.family != socket.AF_UNIX
            context = certificates.context if certificates is not None and is_safe else None
            patience_s = HANDSHAKE_S if is_safe else None
            self.servers.append(
                await loop.create_server(
                    self._protocol, sock=sock, ssl=context, ssl_handshake_timeout=patience_s, backlog=BACKLOG
                )
            )
        self.is_started.set()

    def _protocol(self) -> PatientHttp:
        state, most = self.lifespan.state, self._most
        return PatientHttp(config=self.config, server_state=self.server_state, app_state=state, most=most)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stopping.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until_stopped(
    server: _Server, sockets: Sequence[socket.socket], stop: asyncio.Event, started: Callable[[], None]
) -> None:
    async def stopper() -> None:
        await stop.wait()
        server.should_exit = True

    async def announcer() -> None:
        await server.is_started.wait()
        started()

    async with asyncio.TaskGroup() as tasks:
        helpers = [tasks.create_task(stopper()), tasks.create_task(announcer())]
        if server.certificates is not None:
            helpers.append(tasks.create_task(_renewed(server.certificates)))
        try:
            await server.serve(list(sockets))
        finally:
            for helper in helpers:
                helper.cancel()


async def _renewed(certificates: Certificates) -> None:
    """Whoever renews certificates need not tell us, and may with SIGHUP."""
    while True:
        await asyncio.sleep(CERTIFICATES_LOOKED_AT_S)
        certificates.renew()


@contextlib.contextmanager
def _signals(stop: asyncio.Event, certificates: Certificates | None) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, SIGHUP renews certificates, where that is possible (the main thread)."""
    loop = asyncio.get_running_loop()
    heard: dict[signal.Signals, Callable[[], object]] = {signal.SIGINT: stop.set, signal.SIGTERM: stop.set}
    if certificates is not None:
        heard[signal.SIGHUP] = partial(certificates.renew, is_asked=True)
    caught: list[signal.Signals] = []
    for number, act in heard.items():
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, act)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


async def _opened(settings: ServerSettings, opener: Callable[[str], Awaitable[Store]]) -> Store:
    """A store that does not answer yet gets its time; whatever else is wrong with it is told at once."""
    clock, rng = settings.cluster.clock, random.Random()
    deadline = clock.monotonic() + settings.cluster.start_timeout_s
    told = ""
    while True:
        try:
            return await _open(settings.store, opener)
        except StoreUnavailable as error:
            if clock.monotonic() >= deadline:
                raise
            if error.detail != told:
                told = error.detail
                log.warning("store-awaited", extra={"facts": {"detail": f"{told}: waiting for it"}})
        await clock.sleep(rng.uniform(*START_PAUSE_S))


async def _open(url: str, opener: Callable[[str], Awaitable[Store]]) -> Store:
    try:
        return await opener(url)
    except StoreError as error:
        raise _store_error(url, error) from error
    except OSError as error:
        raise StoreBroken(
            f"the store {shown(url)} cannot be opened: {error.strerror or error}",
            fix="name one that this user may write, with --store sqlite:///some/dir/kvnet.db",
        ) from error


def _store_error(url: str, error: StoreError) -> KvnetError:
    told = problems.from_store(error)
    return type(told)(f"the store {shown(url)} cannot be opened: {error}", fix=told.fix)


def _listening(settings: ServerSettings, sockets: Sequence[socket.socket]) -> Listening:
    for sock in sockets:
        if sock.family != socket.AF_UNIX:
            host, port = sock.getsockname()[:2]
            scheme = "http" if settings.tls is None else "https"
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            return Listening(f"{scheme}://{place}", settings.listen_unix)
    return Listening("", settings.listen_unix)


def _started(listening: Listening, ready: Callable[[Listening], None] | None) -> None:
    if ready is not None:
        ready(listening)


def _bind(settings: ServerSettings) -> list[socket.socket]:
    if not settings.listen and settings.listen_unix is None:
        raise Invalid("there is no address to listen on", fix=f"--listen {DEFAULT_LISTEN} or --listen-unix PATH")
    sockets: list[socket.socket] = []
    try:
        if settings.listen:
            sockets.append(bind_tcp(settings.listen))
        if settings.listen_unix is not None:
            sockets.append(bind_unix(settings.listen_unix))
    except KvnetError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
