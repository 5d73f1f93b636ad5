"""The kernel's objects as plain data: what a host should have, what it has, and the operations between the two.

Shared by the drivers (which make desired states), the planner (which compares), the kernel (which dumps and applies)
and the fake kernel. Addresses and MACs in the numerous kinds are packed bytes, as the kernel tells them: a full pass
compares tens of thousands of these. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

BRIDGE_PREFIX = "kvb"  # + the network's id (12 hex digits) = 15 characters, the kernel's limit
VXLAN_PREFIX = "kvx"
SHIM_PREFIX = "kvs"
VETH_PREFIX = "kve"  # + 12 hex digits of a hash of the endpoint's id
MACVLAN_PREFIX = "kvm"  # the same; no device on the host has that name: the interface is born in the workload
HANDED_PREFIX = "kt"  # the same; of what waits on the host for its runtime to move it into the workload
BRIDGE_MAC_PREFIX = b"\x02\x6b"  # of every bridge's MAC; with the group it marks a bridge that an operator named
LINK_GROUP = 0x6B76  # "kv": IFLA_GROUP of every link of ours, set in the same message that creates it
PROTOCOL = 222  # RTA_PROTOCOL / NDA_PROTOCOL of our routes and neighbours
VXLAN_PORT = 4789  # RFC 7348
VXLAN_OVERHEAD_IPV4 = 50
VXLAN_OVERHEAD_IPV6 = 70

Mac = bytes  # 6 bytes
Ip = bytes  # 4 or 16 bytes, network order


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network's bridge on this host. `mac` is the anycast gateway's, the same on every host.

    `name` is `kvb` and the network's id, unless the network asks for another: then `network` tells whose it is, in a
    desired state. `altered`: something of it that has no field here is not as kvnet makes it; a change sets it right.
    """

    name: str
    mac: Mac
    mtu: int
    ipv6: bool
    up: bool = True
    altered: bool = False
    network: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A network's tunnel device: nolearning, neighbour suppression on. `bridge` is its master ("" if it has none).

    Without a bridge it carries routed traffic, and `mac` is this host's own on it; b"" leaves the choice to the kernel.
    `altered`: as of a `Bridge`.
    """

    name: str
    vni: int
    local: Ip
    mtu: int
    bridge: str
    port: int = VXLAN_PORT
    learning: bool = False
    suppress: bool = True
    isolated: bool = False
    up: bool = True
    mac: Mac = b""
    altered: bool = False


@dataclass(frozen=True, slots=True)
class Veth:
    """The host's half of an endpoint's interface, a port of the network's bridge.

    `hairpin`: the bridge may send a frame back where it came from; only who publishes ports needs it.
    `network`: whose it is, in a desired state. `altered`: as of a `Bridge`.
    """

    name: str
    mtu: int
    bridge: str
    isolated: bool = False
    up: bool = True
    hairpin: bool = False
    altered: bool = False
    network: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Macvlan:
    """An endpoint's interface directly on an uplink (macvlan, bridge mode). It is wholly in the workload's namespace.

    `name` stands for it in a state; on the host there is no such device. `network`: as of a `Veth`.
    """

    name: str
    uplink: str
    mtu: int
    network: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Shim:
    """The host's own macvlan on an uplink: its way to the workloads there, which the uplink itself cannot reach."""

    name: str
    uplink: str
    mac: Mac
    mtu: int
    up: bool = True


@dataclass(frozen=True, slots=True)
class Foreign:
    """A link that is not ours under a name that could be ours, or that holds a VNI on our port."""

    name: str
    kind: str
    vni: int | None = None


Link = Bridge | Vxlan | Veth | Macvlan | Shim


@dataclass(frozen=True, slots=True)
class Uplink:
    """A link of the host's own that a network stands on, as it was found. Never made, deleted or given an address.

    `bridge`: its master, ours or another ("" for none). `is_bridge`: it is a bridge of the operator's.
    """

    name: str
    mtu: int
    up: bool
    mac: Mac = b""
    bridge: str = ""
    is_bridge: bool = False
    has_addresses: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSide:
    """The workload's half: born in `netns` (a path), configured once at attach; never compared, it is not ours."""

    netns: str
    interface: str
    mac: Mac
    mtu: int
    addresses: tuple[tuple[Ip, int], ...]  # (address, prefix length)
    gateways: tuple[Ip, ...]  # default routes, one per family; none on an internal network
    metric: int = 0  # of the default routes: of several networks the lowest is the way out; 0 = the kernel's own
    routes: tuple[tuple[Ip, int, Ip], ...] = ()  # (destination, prefix length, gateway; b"" = on the link)
    is_handed_over: bool = False  # born in the host's own namespace; its runtime moves and configures it


class InterfaceAddress(NamedTuple):
    """An address on a device of ours; set without a prefix route, which is a `Route` of its own."""

    device: str
    address: Ip
    prefix_length: int


class Route(NamedTuple):
    """A route of ours (protocol 222) in the main table: to a subnet of ours over its bridge, or via a peer.

    `device` is "" for a route via a peer on the host's own segment: whatever leads to `gateway`. `onlink`: the gateway
    is behind `device`, though no route says so (a routed network's tunnel).
    """

    destination: Ip
    prefix_length: int
    device: str
    source: Ip = b""
    gateway: Ip = b""
    onlink: bool = False


class Neighbour(NamedTuple):
    """A permanent neighbour on a bridge: what lets it answer ARP and NDP for remote and local endpoints."""

    device: str
    address: Ip
    mac: Mac


class VtepEntry(NamedTuple):
    """A forwarding entry of a VXLAN device ("self"): this MAC is behind that remote VTEP. An all-zero MAC floods."""

    device: str
    mac: Mac
    remote: Ip


class PortEntry(NamedTuple):
    """A static forwarding entry of a bridge ("master", NUD_NOARP): this MAC is behind that port."""

    port: str
    mac: Mac


class Enslavement(NamedTuple):
    """An uplink as a port of a bridge of ours: the bridged variant of a transparent network."""

    uplink: str
    bridge: str


class Publication(NamedTuple):
    """A port of this host that leads to a workload on it. `address` b"" = every address of the host.

    `protocol` is the number of IANA's (6 tcp, 17 udp). The family is that of `to`.
    """

    protocol: int
    address: Ip
    port: int
    to: Ip
    to_port: int


class Gate(NamedTuple):
    """A FORWARD chain of iptables, which is not ours: "nft" or "legacy", for IPv4 or IPv6 (4, 6)."""

    flavour: str
    family: int


@dataclass(frozen=True, slots=True)
class Firewall:
    """What our nftables tables know. The rules are fixed; only these sets change.

    bridges: devices whose networks may talk within themselves and out. internal: those of them with no way out.
    isolated: those of them whose workloads may not even talk among themselves.
    pairs: (from, to) bridges of different networks that may talk; both directions are listed.
    within: (bridge, block) of routed networks: who is behind another host, and may come and be gone to freely.
    blocks: every (network address, prefix length) of ours; inside one of them nothing is masqueraded but hairpins.
    subnets4/6: those of them whose traffic out is masqueraded.
    publications: published ports of workloads on this host.
    apart: tunnels of networks without ICC: between them and the local workloads only what was routed passes.
    vxlans, gateway_macs: the bridge-family guard (rogue router advertisements, the anycast MAC on the wire).
    dns: where this host answers for names: internal networks reach that too, and no workload can claim to be it.
    dockers: bridges of Docker's own: who of our workloads may open a connection to containers there, Docker says.
    """

    bridges: frozenset[str] = frozenset()
    internal: frozenset[str] = frozenset()
    subnets4: frozenset[tuple[Ip, int]] = frozenset()
    subnets6: frozenset[tuple[Ip, int]] = frozenset()
    vxlans: frozenset[str] = frozenset()
    gateway_macs: frozenset[Mac] = frozenset()
    isolated: frozenset[str] = frozenset()
    pairs: frozenset[tuple[str, str]] = frozenset()
    within: frozenset[tuple[str, tuple[Ip, int]]] = frozenset()
    blocks: frozenset[tuple[Ip, int]] = frozenset()
    publications: frozenset[Publication] = frozenset()
    apart: frozenset[str] = frozenset()
    dns: frozenset[Ip] = frozenset()
    dockers: frozenset[str] = frozenset()


NO_FIREWALL = Firewall()


@dataclass(frozen=True, slots=True)
class HostState:
    """All of ours on one host (or of one network on it): desired, or actual as dumped.

    `links` by name. In an actual state, `foreign` are links in our way and the rest holds only what is marked ours.
    `containers` by veth name: in a desired state, for the veths whose namespace is known.
    `sysctls`: path below /proc/sys -> value. `firewall` is None where it was not read, or is damaged (to be set anew).
    `gates`: in an actual state every FORWARD chain of iptables on this host -> whether our accept rule is its; None
    where that was not read. In a desired state `is_forwarding` says whether our traffic has to get through them.
    `walls`: in an actual state chains of others that end what they do not know and that we cannot open, as
    "family table chain". `dockers`: in an actual state Docker's own bridges, where the firewall was read.
    `uplinks`: in an actual state the links that were asked for (see `Scope`), as far as they are there.
    """

    links: Mapping[str, Link] = field(default_factory=dict)
    addresses: frozenset[InterfaceAddress] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    vteps: frozenset[VtepEntry] = frozenset()
    ports: frozenset[PortEntry] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    firewall: Firewall | None = None
    containers: Mapping[str, ContainerSide] = field(default_factory=dict)
    foreign: Mapping[str, Foreign] = field(default_factory=dict)
    enslaved: frozenset[Enslavement] = frozenset()
    uplinks: Mapping[str, Uplink] = field(default_factory=dict)
    gates: Mapping[Gate, bool] | None = None
    walls: frozenset[str] = frozenset()
    dockers: frozenset[str] = frozenset()
    is_forwarding: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a kernel belongs to one network, as far as names alone cannot tell; or to all of them.

    network: its id; "" for everything that is ours. bridge: its bridge's name where an operator chose it.
    blocks: its subnets: a route of ours via a peer is a network's by its destination.
    uplinks: the host's own links that it stands on.
    inside: interfaces without a half on the host (`Macvlan`), by name -> (namespace's path, interface there).
    """

    network: str = ""
    bridge: str = ""
    blocks: frozenset[tuple[Ip, int]] = frozenset()
    uplinks: frozenset[str] = frozenset()
    inside: Mapping[str, tuple[str, str]] = field(default_factory=dict)


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class CreateLink:
    """For a Veth, `container` says where its other half is born and how that is configured."""

    link: Link
    container: ContainerSide | None = None


@dataclass(frozen=True, slots=True)
class UpdateLink:
    """Bring an existing link from `actual` to `link` without re-creating it (MTU, MAC, master, port flags, up).

    `container`: where the other half of a Veth is, if known: its MTU follows.
    """

    link: Link
    actual: Link
    container: ContainerSide | None = None


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """`container`: where a Macvlan is. If that namespace is gone, so is the interface."""

    link: Link
    container: ContainerSide | None = None


@dataclass(frozen=True, slots=True)
class AddAddress:
    address: InterfaceAddress


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    address: InterfaceAddress


@dataclass(frozen=True, slots=True)
class ReplaceRoute:
    route: Route


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    route: Route


@dataclass(frozen=True, slots=True)
class ReplaceNeighbour:
    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class RemoveNeighbour:
    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class ReplaceVtep:
    entry: VtepEntry


@dataclass(frozen=True, slots=True)
class RemoveVtep:
    entry: VtepEntry


@dataclass(frozen=True, slots=True)
class ReplacePort:
    entry: PortEntry


@dataclass(frozen=True, slots=True)
class RemovePort:
    entry: PortEntry


@dataclass(frozen=True, slots=True)
class SetSysctl:
    path: str
    value: str


@dataclass(frozen=True, slots=True)
class SetFirewall:
    """Bring our tables to this content, whatever they hold now, in one atomic transaction."""

    firewall: Firewall


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the local ports of a bridge that an address has a new MAC (gratuitous ARP, unsolicited NA); never leaves."""

    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class Enslave:
    entry: Enslavement


@dataclass(frozen=True, slots=True)
class Release:
    """The uplink leaves our bridge; it is otherwise left as it is."""

    entry: Enslavement


@dataclass(frozen=True, slots=True)
class OpenGate:
    """Our one accept rule goes to the end of that FORWARD chain, marked as ours."""

    gate: Gate


@dataclass(frozen=True, slots=True)
class CloseGate:
    gate: Gate


@dataclass(frozen=True, slots=True)
class ForgetFlows:
    """Connections tracked to (or from) this address of a workload end; with a port, only those to it (published)."""

    address: Ip
    protocol: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class ForgetCallers:
    """Connections tracked to a port of this host itself end: from now on it leads to a workload.

    `version`: of IP. `address` b"": every address of the host.
    """

    version: int
    protocol: int
    port: int
    address: Ip = b""


Operation = (
    CreateLink
    | UpdateLink
    | DeleteLink
    | AddAddress
    | RemoveAddress
    | ReplaceRoute
    | RemoveRoute
    | ReplaceNeighbour
    | RemoveNeighbour
    | ReplaceVtep
    | RemoveVtep
    | ReplacePort
    | RemovePort
    | SetSysctl
    | SetFirewall
    | Announce
    | Enslave
    | Release
    | OpenGate
    | CloseGate
    | ForgetFlows
    | ForgetCallers
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel refused, and its words. The others of the same plan were still tried.

    `is_foreign`: there is a device of that name that is not kvnet's; it was left alone.
    `code`: stable, the condition's; other than the default where `reason` also says what to do about it.
    """

    operation: Operation
    errno: int
    reason: str
    is_foreign: bool = False
    code: str = "kernel-refused"


@dataclass(frozen=True, slots=True)
class Hint:
    """Something of ours may have changed: look again.

    devices: ours, or uplinks. firewall: our tables, or a gate. routes: destinations of routes of ours via peers.
    host: host-wide settings, or Docker's bridges. underlay: the host's own addresses or routes changed. Nothing of all
    that = look at everything.
    """

    devices: frozenset[str] = frozenset()
    firewall: bool = False
    routes: frozenset[tuple[Ip, int]] = frozenset()
    host: bool = False
    underlay: bool = False

    @property
    def is_everything(self) -> bool:
        return not (self.devices or self.firewall or self.routes or self.host or self.underlay)


class Kernel(Protocol):
    """The only way to a kernel: the real one (`worker.kernel`) and the fake one (`datapath.fake`)."""

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        """What is there of ours: all of it, or one network's part. Only `sysctls` that we care about are read.

        `firewall`: our tables and the gates too.
        """
        ...

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        """Execute in order; a failure does not stop the rest. Idempotent: what is already so is no failure."""
        ...

    def hints(self) -> AsyncIterator[Hint]:
        """Changes by anybody, ours included, debounced; lost events come as a `Hint()` for everything. Never ends."""
        ...

    async def has_namespace(self, path: str) -> bool:
        """Whether `path` is a network namespace that can be entered."""
        ...

    async def close(self) -> None: ...
