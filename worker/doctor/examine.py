"""Examines this host: gathers, judges, reports. By a worker of its own host, or by the command line where none runs.

Changes nothing. Whatever cannot be looked at is told as such, so an examination always ends with a report.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.store import Store
from kvnet import __version__
from kvnet.errors import KvnetError
from kvnet.model import Address
from worker.doctor import gather_host, gather_services
from worker.doctor.checks_firewall import check_firewall
from worker.doctor.checks_kernel import check_kernel, numbers
from worker.doctor.checks_services import check_clock, check_controller, check_store
from worker.doctor.checks_settings import check_settings
from worker.doctor.checks_state import check_docker, check_state, check_worker
from worker.doctor.checks_underlay import check_underlay
from worker.doctor.facts import (
    Carried,
    Facts,
    FirewallFacts,
    Link,
    Peer,
    SettingsFacts,
    UnderlayFacts,
    WorkerFacts,
)
from worker.doctor.gather_kernel import gather_kernel
from worker.doctor.report import Check, report
from worker.kernel.inventory import HostAddress, look_around
from worker.kernel.netlink import Netlink

DOCKER_API, DOCKER_PLUGIN = Path("/run/docker.sock"), Path("/run/docker/plugins/kvnet.sock")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of the host to begin with; a worker knows all of it, the command line what it was told.

    `wanted`: the underlay as it was asked for. `status`: the worker's, if it is the worker that examines.
    `store_problem`: why the store could not be opened. `is_controller_named`: else it is only where one usually is.
    """

    host: str = ""
    wanted: str | None = None
    address: Address | None = None
    device: str = ""
    controller: str = ""
    is_controller_named: bool = True
    token: str = ""
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


async def examine(subject: Subject) -> dict[str, Any]:
    facts = await gather(subject)
    return report(subject.host, __version__, checks(facts))


def checks(facts: Facts) -> Iterator[Check]:
    """Everything that is to be said about them."""
    yield from check_kernel(facts.kernel)
    yield from check_settings(facts.settings)
    yield from check_underlay(facts.underlay)
    own = facts.underlay.address
    peer = next((p.underlay for p in facts.underlay.peers or () if own and p.underlay.version == own.version), None)
    yield from check_firewall(
        facts.firewall, own.version if own else 4, str(peer) if peer else "", str(own) if own else ""
    )
    yield from check_clock(facts.clock)
    yield from check_store(facts.store)
    yield from check_controller(facts.controller, own=__version__)
    yield from check_state(facts.state)
    yield from check_docker(facts.docker)
    yield from check_worker(facts.worker)


async def gather(subject: Subject) -> Facts:
    """All at once: most of it is waiting for others."""
    async with asyncio.TaskGroup() as group:
        kernel = group.create_task(asyncio.to_thread(gather_kernel, subject.environment))
        local = group.create_task(asyncio.to_thread(_local, subject))
        services = group.create_task(gather_services.controller(subject.controller, subject.token))
        store = group.create_task(gather_services.store(subject.store, subject.store_url, subject.store_problem))
        state = group.create_task(asyncio.to_thread(gather_services.state, subject.state_dir, subject.socket))
        docker = group.create_task(
            gather_services.docker(subject.docker_is_wanted, subject.docker_api, subject.docker_plugin)
        )
    settings, underlay, firewall = local.result()
    controller, clock = services.result()
    controller = replace(controller, is_named=subject.is_controller_named)
    status = await subject.status() if subject.status is not None else None
    worker = _worker(subject, status, clock.now, underlay.links, firewall)
    known = store.result()
    if status is not None:
        told = status["store"]
        known = replace(known, in_step=bool(told["in_step"]), stale_s=float(told["stale_seconds"]))
    return Facts(
        kernel.result(),
        settings,
        underlay,
        firewall,
        clock,
        known,
        controller,
        state.result(),
        docker.result(),
        worker,
    )


def _worker(
    subject: Subject, status: Mapping[str, Any] | None, now: float, links: Sequence[Link], firewall: FirewallFacts
) -> WorkerFacts:
    at = status.get("last_full_pass_at") if status is not None else None
    return WorkerFacts(
        version=__version__,
        socket=str(subject.socket or ""),
        status=status,
        problem=subject.worker_problem,
        fix=subject.worker_fix,
        full_pass_age_s=max(0.0, now - at) if at is not None else None,
        full_pass_every_s=subject.full_pass_every_s,
        links=links,
        tables=gather_host.own_tables(firewall.nft),
        is_asked=subject.worker_is_asked,
    )


def _local(subject: Subject) -> tuple[SettingsFacts, UnderlayFacts, FirewallFacts]:
    """What is read from this host, in one thread."""
    links = gather_host.links()
    at = _underlay(subject)
    device = next((link for link in links if at is not None and link.name == at.device), None)
    name = device.name if device is not None else ""
    features, driver = gather_host.offloads(name) if name else ({}, "")
    underlay = UnderlayFacts(
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
    found = gather_host.firewall(name, subject.environment)
    firewall = replace(found, has_networks=gather_host.has_networks(links), has_worker=subject.status is not None)
    return replace(gather_host.settings(name), forwarded=subject.forwarded), underlay, firewall


def _underlay(subject: Subject) -> HostAddress | None:
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
