"""The question `doctor`: this host, examined by its own worker, which knows what the host is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from backends.store import Store
from backends.url import shown
from datapath.objects import VXLAN_OVERHEAD_IPV4, VXLAN_OVERHEAD_IPV6
from kvnet.model import Driver, Network
from worker.doctor.examine import examine
from worker.doctor.facts import Carried, Peer
from worker.doctor.gather import Subject
from worker.settings import DockerMode, Settings
from worker.threads import Inside
from worker.view import View

Status = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class Doctor:
    def __init__(self, settings: Settings, store: Store, view: View, status: Status, inside: Inside) -> None:
        self._settings = settings
        self._store = store
        self._view = view
        self._status = status
        self._inside = inside

    async def answer(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Never raises for what it finds: a finding is the answer."""
        return await examine(self._subject())

    def _subject(self) -> Subject:
        settings, own = self._settings, self._view.own
        return Subject(
            host=settings.host,
            wanted=_wanted(settings),
            address=own.underlay if own is not None else settings.underlay.address,
            device=settings.underlay.device,
            controller=settings.controller,
            token=settings.token,
            trust=settings.trust,
            store=self._store,
            store_url=shown(settings.store_url),
            state_dir=settings.state_dir,
            socket=settings.socket,
            docker_is_wanted=settings.docker.mode is not DockerMode.OFF,
            docker_api=settings.docker.api,
            docker_plugin=settings.docker.plugin,
            status=lambda: self._status({}),
            peers=[
                Peer(host.name, host.underlay, host.mtu)
                for host in self._view.hosts.items.values()
                if host.name != settings.host
            ],
            networks=self._carried(),
            forwarded=frozenset(
                subnet.cidr.version
                for network in self._networks()
                if not network.internal and network.driver is not Driver.TRANSPARENT
                for subnet in network.subnets
            ),
            full_pass_every_s=settings.timing.full_pass_s,
            inside=self._inside,
        )

    def _networks(self) -> list[Network]:
        tables = (self._view.tables(id_) for id_ in set(self._view.local.items.values()))
        return [one.network for one in tables if one is not None and one.network is not None]

    def _carried(self) -> list[Carried]:
        own = self._view.own
        headers = VXLAN_OVERHEAD_IPV6 if own is not None and own.underlay.version == 6 else VXLAN_OVERHEAD_IPV4
        found = [
            Carried(network.name, network.driver.value, network.mtu, headers * (network.driver is Driver.OVERLAY))
            for network in self._networks()
            if network.driver in (Driver.OVERLAY, Driver.ROUTED)
        ]
        return sorted(found, key=lambda one: one.name)


def _wanted(settings: Settings) -> str:
    underlay = settings.underlay
    return str(underlay.address) if underlay.address is not None else underlay.device
