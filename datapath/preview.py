"""What a change of the cluster would do to its hosts: the plan of each, before anything has changed.

Pure. The very functions that a worker applies (`desired`, `plan`) are asked twice, with the cluster as it is and as it
would be; the difference is what the workers will do. It is exact as far as the hosts are as they should be: drift that
a worker is about to repair is not known here. Never looks at a kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from datapath.conditions import Finding, findings
from datapath.desired import Memo, desired, merge
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
    known = {id_: frozenset(before.endpoints.get(id_, ())) for id_ in concerned}
    sides = _Side(before, known, concerned), _Side(after, known, concerned)
    memo = Memo()
    shown = (_of_host(*sides, name, memo) for name in sorted(before.hosts.keys() & after.hosts.keys()))
    return [one for one in shown if one is not None and (one.operations or one.found)]


class _Side:
    """A situation with its endpoints by host: looked through once, not once for every host.

    `known`: of the concerned networks, the endpoints that have their interfaces already.
    """

    def __init__(self, situation: Situation, known: Mapping[str, Collection[str]], concerned: Collection[str]) -> None:
        self.situation = situation
        self.known = known
        self.concerned = concerned
        self.local: dict[str, dict[str, dict[str, Endpoint]]] = {}
        for network_id, endpoints in situation.endpoints.items():
            for endpoint in endpoints.values():
                self.local.setdefault(endpoint.host, {}).setdefault(network_id, {})[endpoint.id] = endpoint


def _of_host(before: _Side, after: _Side, name: str, memo: Memo) -> HostPreview | None:
    networks = before.concerned
    views = _view(before, name), _view(after, name)
    if not any(_is_there(view, id_) for view in views for id_ in networks):
        return None
    held, wanted = (_state(view, networks, memo) for view in views)
    known = {(f.network, f.code) for id_ in networks for f in findings(views[0], id_)}
    new = [f for id_ in networks for f in findings(views[1], id_) if (f.network, f.code) not in known]
    return HostPreview(name, plan(wanted, held).operations, held, wanted, tuple(new))


def _is_there(view: HostView, network_id: str) -> bool:
    network = view.networks.get(network_id)
    return network is not None and is_built(view, network)


def _state(view: HostView, networks: Collection[str], memo: Memo) -> HostState:
    """The networks' parts and what concerns the whole host."""
    state = merge([*(desired(view, id_, memo) for id_ in sorted(networks)), host_state(view)])
    return replace(state, uplinks=view.uplinks)


def _view(side: _Side, host: str) -> HostView:
    """What that host's worker would work from; of networks that are not concerned, no more than its own endpoints."""
    situation, local = side.situation, side.local.get(host, {})
    present = {id_: network for id_ in local if (network := situation.networks.get(id_)) is not None}
    for network in list(present.values()):
        peers = (situation.networks.get(id_) for id_ in network.peers)
        present.update({peer.id: peer for peer in peers if peer is not None and are_peers(network, peer)})
    everyone = {id_: situation.endpoints.get(id_, {}) for id_ in present if id_ in side.concerned}
    return HostView(
        host=host,
        hosts=situation.hosts,
        networks=present,
        endpoints={id_: everyone.get(id_, local.get(id_, {})) for id_ in present},
        attachments={attachment.endpoint: attachment for attachment in _attachments(side, local)},
        blocks={id_: situation.blocks[id_] for id_ in present if id_ in situation.blocks},
        uplinks=_uplinks(situation.hosts.get(host), present.values()),
        carried=frozenset(local),
    )


def namespace_of(endpoint: Endpoint) -> str:
    """Stands for the path that only the host will know."""
    return f"the namespace of {endpoint.name} ({endpoint.id})"


def _attachments(side: _Side, local: Mapping[str, Mapping[str, Endpoint]]) -> Iterator[Attachment]:
    """Every endpoint of a host is taken for attached. A macvlan is nowhere but in its namespace, so that has a name."""
    for network_id, endpoints in local.items():
        network, known = side.situation.networks.get(network_id), side.known.get(network_id)
        is_inside = network is not None and network.driver is Driver.TRANSPARENT
        prefix = (network.interface_prefix if network is not None else "") or DEFAULT_PREFIX
        for endpoint in endpoints.values():
            is_new = known is not None and endpoint.id not in known
            yield Attachment(endpoint.id, namespace_of(endpoint) if is_new or is_inside else "", f"{prefix}0")


def _uplinks(host: Host | None, networks: Collection[Network]) -> dict[str, Uplink]:
    """Taken for there and sound: whether they are is only known on the host."""
    mtu = host.mtu if host is not None else 1500
    return {network.uplink: Uplink(network.uplink, mtu, up=True) for network in networks if network.uplink}


def _peers_of(situation: Situation, networks: Collection[str]) -> set[str]:
    found = (situation.networks.get(id_) for id_ in networks)
    return {peer for network in found if network is not None for peer in network.peers}
