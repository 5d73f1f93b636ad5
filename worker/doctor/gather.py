"""Gathers what is to be judged of a host, all at once: most of it is waiting for others.

What goes wrong with one part is told of that part, and the others are gathered all the same. Changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from backends.store import Store
from kvnet import __version__
from kvnet.errors import KvnetError
from kvnet.model import Address
from kvnet.tls import NO_TRUST, Trust
from worker.doctor import gather_host, gather_services
from worker.doctor.checks_kernel import numbers
from worker.doctor.facts import (
    Carried,
    Facts,
    FirewallFacts,
    Link,
    Peer,
    SettingsFacts,
    StoreFacts,
    UnderlayFacts,
    WorkerFacts,
)
from worker.doctor.gather_kernel import gather_kernel
from worker.kernel.inventory import HostAddress, look_around
from worker.kernel.netlink import Netlink
from worker.threads import Inside

DOCKER_API, DOCKER_PLUGIN = Path("/run/docker.sock"), Path("/run/docker/plugins/kvnet.sock")
LONGEST_PROBLEM = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of the host to begin with; a worker knows all of it, the command line what it was told.

    `wanted`: the underlay as it was asked for. `status`: the worker's, if it is the worker that examines.
    `store_problem`: why the store could not be opened. `is_controller_named`: else it is only where one usually is.
    `inside`: runs what waits for the kernel.
    """

    host: str = ""
    wanted: str | None = None
    address: Address | None = None
    device: str = ""
    controller: str = ""
    is_controller_named: bool = True
    token: str = ""
    trust: Trust = NO_TRUST
    store: Store | None = None
    store_url: str = ""
    store_problem: KvnetError | None = None
    state_dir: Path | None = None
    socket: Path | None = None
    docker_is_wanted: bool | None = None
    docker_api: Path = DOCKER_API
    docker_plugin: Path | None = DOCKER_PLUGIN
    status: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    worker_is_asked: bool = True
    worker_problem: str = ""
    worker_fix: str = ""
    peers: Sequence[Peer] | None = None
    networks: Sequence[Carried] | None = None
    forwarded: frozenset[int] = frozenset()
    full_pass_every_s: float = 60.0
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    inside: Inside = asyncio.to_thread


class _Guard:
    """Runs each part for itself. A part that fails is None, and `problems` says why, by area."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    async def of(self, area: str, part: Awaitable[T]) -> T | None:
        try:
            return await part
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the host is still to be looked at
            self.problems[area] = f"{type(error).__name__}: {error}"[:LONGEST_PROBLEM]
            return None


async def gather(subject: Subject) -> Facts:
    guard = _Guard()
    inside = subject.inside
    at, links = await guard.of("underlay", inside(_ground, subject)) or (None, None)
    name = at.device if at is not None else ""
    async with asyncio.TaskGroup() as group:

        def start(area: str, part: Awaitable[T]) -> asyncio.Task[T | None]:
            return group.create_task(guard.of(area, part))

        kernel = start("kernel", inside(gather_kernel, subject.environment))
        settings = start("settings", inside(gather_host.settings, name))
        firewall = start("firewall", inside(gather_host.firewall, name, subject.environment))
        services = start("controller", gather_services.controller(subject.controller, subject.token, subject.trust))
        store = start("store", gather_services.store(subject.store, subject.store_url, subject.store_problem))
        state = start("state", inside(gather_services.state, subject.state_dir, subject.socket))
        docker = start(
            "docker", gather_services.docker(subject.docker_is_wanted, subject.docker_api, subject.docker_plugin)
        )
        status = start("worker", _status(subject))
        underlay = start("underlay", inside(_underlay, subject, at, links)) if links is not None else None
    controller, clock = services.result() or (None, None)
    rules = _rules(subject, firewall.result(), links or ())
    return Facts(
        kernel.result(),
        _settings(subject, settings.result()),
        underlay.result() if underlay is not None else None,
        rules,
        clock,
        _store(store.result(), status.result()),
        replace(controller, is_named=subject.is_controller_named) if controller is not None else None,
        state.result(),
        docker.result(),
        _worker(subject, status.result(), links or (), rules) if "worker" not in guard.problems else None,
        {"clock": guard.problems.get("controller", ""), **guard.problems},
    )


async def _status(subject: Subject) -> Mapping[str, Any] | None:
    return await subject.status() if subject.status is not None else None


def _settings(subject: Subject, found: SettingsFacts | None) -> SettingsFacts | None:
    return None if found is None else replace(found, forwarded=subject.forwarded)


def _rules(subject: Subject, found: FirewallFacts | None, links: Sequence[Link]) -> FirewallFacts | None:
    if found is None:
        return None
    return replace(found, has_networks=gather_host.has_networks(links), has_worker=subject.status is not None)


def _store(found: StoreFacts | None, status: Mapping[str, Any] | None) -> StoreFacts | None:
    """With what the worker's mirrors say."""
    if found is None or status is None:
        return found
    told = status["store"]
    return replace(found, in_step=bool(told["in_step"]), stale_s=float(told["stale_seconds"]))


def _worker(
    subject: Subject,
    status: Mapping[str, Any] | None,
    links: Sequence[Link],
    firewall: FirewallFacts | None,
) -> WorkerFacts:
    at = status.get("last_full_pass_at") if status is not None else None
    return WorkerFacts(
        version=__version__,
        socket=str(subject.socket or ""),
        status=status,
        problem=subject.worker_problem,
        fix=subject.worker_fix,
        full_pass_age_s=max(0.0, time.time() - at) if at is not None else None,
        full_pass_every_s=subject.full_pass_every_s,
        links=links,
        tables=gather_host.own_tables(firewall.chains or () if firewall is not None else ()),
        is_asked=subject.worker_is_asked,
    )


def _ground(subject: Subject) -> tuple[HostAddress | None, list[Link]]:
    """What the others need to know: where the underlay is, and the links."""
    return _place(subject), gather_host.links()


def _underlay(subject: Subject, at: HostAddress | None, links: Sequence[Link]) -> UnderlayFacts:
    device = next((link for link in links if at is not None and link.name == at.device), None)
    features, driver = gather_host.offloads(device.name) if device is not None else ({}, "")
    return UnderlayFacts(
        wanted=subject.wanted,
        address=at.address if at is not None else subject.address,
        device=device,
        links=links,
        holders=gather_host.holders(),
        offloads=features,
        driver=driver,
        checksum_errors=gather_host.checksum_errors(),
        peers=subject.peers,
        networks=subject.networks,
        kernel=_pair(numbers(os.uname().release)),
    )


def _place(subject: Subject) -> HostAddress | None:
    """Where the address is now; without one, that by which this host reaches the world."""
    rtnetlink = Netlink(small=True)
    try:
        addresses = look_around(rtnetlink).addresses
    finally:
        rtnetlink.close()
    if subject.address is not None:
        return next((one for one in addresses if one.address == subject.address), None)
    if subject.device:
        return next((one for one in addresses if one.device == subject.device), None)
    wanted = gather_host.default_source(4) or gather_host.default_source(6)
    return next((one for one in addresses if one.address == wanted), None)


def _pair(version: tuple[int, ...]) -> tuple[int, int]:
    major, minor, *_ = *version, 0, 0
    return major, minor
