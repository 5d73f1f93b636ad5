"""Reads the part of the kernel that a pass needs: from memory where that is trusted, else from the kernel.

Where to look is said by scopes: a network that is going away is looked for where it was seen last. Changes nothing in
the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from datapath.desired import merge
from datapath.names import DNS_BRIDGE
from datapath.objects import HostState, Kernel, Scope, Uplink
from datapath.scopes import scope_of, whole_scope
from datapath.view import HostView
from worker.known import HostPart, Known
from worker.passes import device_settings, host_settings
from worker.ports import Time
from worker.source import Source

# The host as a whole: no network, but the bridge that bears the address for names.
HOST = Scope("0" * 12, bridge=DNS_BRIDGE)


@dataclass(frozen=True, slots=True)
class Sight:
    """`scopes` by network: of those that were looked at, and of others that are known.

    `seen`: those whose specification was known when it was looked; of others it is not known what was overlooked.
    """

    actual: HostState
    scopes: Mapping[str, Scope]
    uplinks: Mapping[str, Uplink]
    seen: frozenset[str]


class Observer:
    def __init__(self, kernel: Kernel, source: Source, time: Time) -> None:
        self._kernel = kernel
        self._source = source
        self._time = time

    async def everything(self, networks: Mapping[str, Known]) -> Sight:
        outline = self._source.outline(())
        going = {id_: known.scope for id_, known in networks.items() if id_ not in outline.networks}
        whole = whole_scope(outline)
        scope = replace(
            whole,
            uplinks=whole.uplinks.union(*(scope.uplinks for scope in going.values())),
            inside={**self._source.macvlans(), **_inside(going.values()), **whole.inside},
        )
        actual = await self._kernel.read(scope)
        await self._source.inspect(actual, None)
        scopes = {**going, **{id_: scope_of(outline, id_) for id_ in outline.networks}}
        return Sight(actual, scopes, actual.uplinks, frozenset(outline.networks))

    async def part(
        self,
        chosen: Collection[str],
        read: Collection[str],
        networks: Mapping[str, Known],
        host: HostPart,
        *,
        must_read_host: bool,
    ) -> Sight:
        outline = self._source.outline(())
        scopes = {id_: _scope(outline, id_, networks.get(id_)) for id_ in sorted({*chosen, *networks})}
        parts = []
        uplinks: dict[str, Uplink] = {}
        for remembered in networks.values():
            uplinks.update(remembered.uplinks)
        for network_id in sorted(chosen):  # the same order in every run
            known = networks.get(network_id)
            is_trusted = known is not None and network_id not in read and _is_same(known.scope, scopes[network_id])
            part = known.actual if known is not None and is_trusted else None
            if part is None:
                part = await self._kernel.read(scopes[network_id], firewall=False)
                await self._source.inspect(part, [network_id])
                for name in scopes[network_id].uplinks:
                    uplinks.pop(name, None)
                uplinks.update(part.uplinks)
            parts.append(part)
        whole = await self._host(host, must_read=must_read_host)
        read_parts = merge(parts)
        foreign = {name: found for name, found in read_parts.foreign.items() if name != DNS_BRIDGE}
        actual = replace(merge([replace(read_parts, foreign=foreign), whole]), walls=whole.walls, dockers=whole.dockers)
        return Sight(actual, scopes, uplinks, frozenset(outline.networks))

    async def _host(self, host: HostPart, *, must_read: bool) -> HostState:
        if host.actual is not None and not must_read:
            return host.actual
        there = await self._kernel.read(HOST, firewall=True)
        settings = host_settings(there) or (host_settings(host.actual) if host.actual is not None else {})
        host.read_at = self._time.monotonic()
        in_the_way = {name: found for name, found in there.foreign.items() if name == DNS_BRIDGE}
        return replace(there, sysctls={**device_settings(there, DNS_BRIDGE), **settings}, foreign=in_the_way)


def _scope(outline: HostView, network_id: str, known: Known | None) -> Scope:
    if network_id in outline.networks or known is None:
        return scope_of(outline, network_id)
    return replace(known.scope, network=network_id)


def _is_same(one: Scope, other: Scope) -> bool:
    """Whether what was read by one is what the other would read, but for what this host made itself since."""
    return (one.bridge, one.uplinks) == (other.bridge, other.uplinks)


def _inside(scopes: Collection[Scope]) -> dict[str, tuple[str, str]]:
    return {name: place for scope in scopes for name, place in scope.inside.items()}
