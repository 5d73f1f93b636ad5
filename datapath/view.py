"""What a host knows of the cluster: the only input of the desired state, put together by the worker from its mirrors.

Plain data. The controller makes one for any host to answer what would change there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from datapath.census import Course, Members
from datapath.memo import NetworkMemo
from datapath.objects import Ip, Uplink
from kvnet.model import Block, Endpoint, Host, Network


@dataclass(frozen=True, slots=True)
class Attachment:
    """A workload that got an interface here. An empty `netns`: its veth was found, but not where its other half is.

    `routes`: what leads over its interface besides the network, on the link: (destination, prefix length).
    """

    endpoint: str
    netns: str
    interface: str
    order: int = 0  # the how manieth of ours in its namespace, from 0: of equal networks the first is the way out
    is_handed_over: bool = False  # the inner half is left in the host's namespace for its runtime to move and configure
    routes: tuple[tuple[Ip, int], ...] = ()


@dataclass(frozen=True, slots=True)
class HostView:
    """`endpoints`: by network id, then endpoint id. `attachments`: by endpoint id, of this host only.

    `networks` are those that have an endpoint on this host, and those that such a network is peered with. A view of a
    few networks only has their peers too, whose endpoints it need not have: `carried` are the ids of networks with an
    endpoint on this host, where `endpoints` may not tell it.
    `blocks`: by network id, all of a routed network's, of every host.
    `uplinks`: the host's links that its transparent networks stand on, as last read; one that is not in here is not
    there.
    `courses`: by network id how its endpoints changed, where that is known: it spares to compare them all.
    `dockers`: Docker's own bridges on this host, as last read.
    `dns`: where this host answers for names; b"" = nowhere. `serves_docker`: it does so also without any network, for
    the containers of a Docker that is told to ask there.
    """

    host: str
    hosts: Mapping[str, Host]
    networks: Mapping[str, Network]
    endpoints: Mapping[str, Mapping[str, Endpoint]]
    attachments: Mapping[str, Attachment]
    blocks: Mapping[str, Collection[Block]] = field(default_factory=dict)
    uplinks: Mapping[str, Uplink] = field(default_factory=dict)
    carried: Collection[str] = ()
    courses: Mapping[str, Course] = field(default_factory=dict)
    dockers: Collection[str] = ()
    dns: Ip = b""
    serves_docker: bool = False


@dataclass(frozen=True, slots=True)
class NetworkView:
    """One network as its driver sees it.

    `uplink`: None = not there. `dns`: as of a `HostView`.
    """

    network: Network
    host: Host
    hosts: Mapping[str, Host]
    members: Members
    attachments: Mapping[str, Attachment]
    memo: NetworkMemo
    blocks: Collection[Block] = ()
    uplink: Uplink | None = None
    dns: Ip = b""
