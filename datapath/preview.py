"""What a change of the cluster would do to its hosts: the plan of each, before anything has changed.

Pure. The very functions that a worker applies (`desired`, `plan`) are asked twice, with the cluster as it is and as it
would be; the difference is what the workers will do. It is exact as far as the hosts are as they should be: drift that
a worker is about to repair is not known here. Never looks at a kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from datapath.conditions import Finding, findings
from datapath.desired import desired, merge
from datapath.host import host_state
from datapath.objects import HostState, Operation, Uplink
from datapath.plan import plan
from datapath.presence import are_peers, is_built
from datapath.view import Attachment, HostView
from kvnet.model import Block, Driver, Endpoint, Host, Network

DEFAULT_PREFIX = "eth"


@dataclass(frozen=True, slots=True)
class Situation:
    """The part of a cluster that a change concerns: all networks of the concerned hosts, their endpoints and blocks."""

    hosts: Mapping[str, Host]
    networks: Mapping[str, Network]
    endpoints: Mapping[str, Mapping[str, Endpoint]]
    blocks: Mapping[str, Collection[Block]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostPreview:
    """`operations` in the order in which the host's worker applies them, from one state to the other.

    `found`: what will be wrong there afterwards and is not now.
    """

    host: str
    operations: tuple[Operation, ...]
    before: HostState
    after: HostState
    found: tuple[Finding, ...] = ()


def preview(before: Situation, after: Situation, networks: Collection[str]) -> list[HostPreview]:
    """Of every host for which something changes by a change of these networks, by name."""
    concerned = {*networks, *_peers_of(before, networks), *_peers_of(after, networks)}
    shown = (_of_host(before, after, name, concerned) for name in sorted(before.hosts.keys() | after.hosts.keys()))
    return [one for one in shown if one is not None and (one.operations or one.found)]


def _of_host(before: Situation, after: Situation, name: str, networks: Collection[str]) -> HostPreview | None:
    views = view_of(before, name), view_of(after, name, known=before)
    if name not in before.hosts or name not in after.hosts:
        return None
    if not any(_is_there(view, id_) for view in views for id_ in networks):
        return None
    held, wanted = (_state(view, networks) for view in views)
    known = {(f.network, f.code) for id_ in networks for f in findings(views[0], id_)}
    new = [f for id_ in networks for f in findings(views[1], id_) if (f.network, f.code) not in known]
    return HostPreview(name, plan(wanted, held).operations, held, wanted, tuple(new))


def _is_there(view: HostView, network_id: str) -> bool:
    network = view.networks.get(network_id)
    return network is not None and is_built(view, network)


def _state(view: HostView, networks: Collection[str]) -> HostState:
    """The networks' parts and what concerns the whole host."""
    state = merge([*(desired(view, id_) for id_ in sorted(networks)), host_state(view)])
    return replace(state, uplinks=view.uplinks)


def view_of(situation: Situation, host: str, known: Situation | None = None) -> HostView:
    """What that host's worker would work from. Endpoints that are not in `known` have no interface yet."""
    carried = {
        id_ for id_, found in situation.endpoints.items() if any(endpoint.host == host for endpoint in found.values())
    }
    present = {id_: network for id_, network in situation.networks.items() if id_ in carried}
    for network in list(present.values()):
        peers = (situation.networks.get(id_) for id_ in network.peers)
        present.update({peer.id: peer for peer in peers if peer is not None and are_peers(network, peer)})
    return HostView(
        host=host,
        hosts=situation.hosts,
        networks=present,
        endpoints={id_: situation.endpoints.get(id_, {}) for id_ in present},
        attachments={a.endpoint: a for a in _attachments(situation, host, carried, known or situation)},
        blocks={id_: situation.blocks[id_] for id_ in present if id_ in situation.blocks},
        uplinks=_uplinks(situation.hosts.get(host), present.values()),
        carried=frozenset(carried),
    )


def namespace_of(endpoint: Endpoint) -> str:
    """Stands for the path that only the host will know."""
    return f"the namespace of {endpoint.name} ({endpoint.id})"


def _attachments(situation: Situation, host: str, carried: Collection[str], known: Situation) -> Iterator[Attachment]:
    """Every endpoint of a host is taken for attached. A macvlan is nowhere but in its namespace, so that has a name."""
    for network_id in carried:
        network = situation.networks.get(network_id)
        is_inside = network is not None and network.driver is Driver.TRANSPARENT
        prefix = (network.interface_prefix if network is not None else "") or DEFAULT_PREFIX
        for endpoint in situation.endpoints[network_id].values():
            if endpoint.host == host:
                is_new = endpoint.id not in known.endpoints.get(network_id, {})
                yield Attachment(endpoint.id, namespace_of(endpoint) if is_new or is_inside else "", f"{prefix}0")


def _uplinks(host: Host | None, networks: Collection[Network]) -> dict[str, Uplink]:
    """Taken for there and sound: whether they are is only known on the host."""
    mtu = host.mtu if host is not None else 1500
    return {network.uplink: Uplink(network.uplink, mtu, up=True) for network in networks if network.uplink}


def _peers_of(situation: Situation, networks: Collection[str]) -> set[str]:
    found = (situation.networks.get(id_) for id_ in networks)
    return {peer for network in found if network is not None for peer in network.peers}
