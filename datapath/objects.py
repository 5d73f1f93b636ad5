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
VETH_PREFIX = "kve"  # + 12 hex digits of a hash of the endpoint's id
LINK_GROUP = 0x6B76  # "kv": IFLA_GROUP of every link of ours, set in the same message that creates it
PROTOCOL = 222  # RTA_PROTOCOL / NDA_PROTOCOL of our routes and neighbours
VXLAN_PORT = 4789  # RFC 7348
VXLAN_OVERHEAD_IPV4 = 50
VXLAN_OVERHEAD_IPV6 = 70

Mac = bytes  # 6 bytes
Ip = bytes  # 4 or 16 bytes, network order


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network's bridge on this host. `mac` is the anycast gateway's, the same on every host."""

    name: str
    mac: Mac
    mtu: int
    ipv6: bool
    up: bool = True


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A network's tunnel device: nolearning, neighbour suppression on. `bridge` is its master ("" if it has none)."""

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


@dataclass(frozen=True, slots=True)
class Veth:
    """The host's half of an endpoint's interface, a port of the network's bridge."""

    name: str
    mtu: int
    bridge: str
    isolated: bool = False
    up: bool = True


@dataclass(frozen=True, slots=True)
class Foreign:
    """A link that is not ours under a name that could be ours, or that holds a VNI on our port."""

    name: str
    kind: str
    vni: int | None = None


Link = Bridge | Vxlan | Veth


@dataclass(frozen=True, slots=True)
class ContainerSide:
    """The workload's half: born in `netns` (a path), configured once at attach; never compared, it is not ours."""

    netns: str
    interface: str
    mac: Mac
    mtu: int
    addresses: tuple[tuple[Ip, int], ...]  # (address, prefix length)
    gateways: tuple[Ip, ...]  # default routes, one per family; none on an internal network


class InterfaceAddress(NamedTuple):
    """An address on a device of ours; set without a prefix route, which is a `Route` of its own."""

    device: str
    address: Ip
    prefix_length: int


class Route(NamedTuple):
    """A route of ours (protocol 222) in the main table: to a subnet of ours over its bridge, or via a peer."""

    destination: Ip
    prefix_length: int
    device: str
    source: Ip = b""
    gateway: Ip = b""


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


@dataclass(frozen=True, slots=True)
class Firewall:
    """What our nftables tables know. The rules are fixed; only these sets change.

    bridges: devices whose networks may talk within themselves and out. internal: those of them with no way out.
    subnets4/6: (network address, prefix length) whose traffic out is masqueraded.
    vxlans, gateway_macs: the bridge-family guard (rogue router advertisements, the anycast MAC on the wire).
    """

    bridges: frozenset[str] = frozenset()
    internal: frozenset[str] = frozenset()
    subnets4: frozenset[tuple[Ip, int]] = frozenset()
    subnets6: frozenset[tuple[Ip, int]] = frozenset()
    vxlans: frozenset[str] = frozenset()
    gateway_macs: frozenset[Mac] = frozenset()


NO_FIREWALL = Firewall()


@dataclass(frozen=True, slots=True)
class HostState:
    """All of ours on one host (or of one network on it): desired, or actual as dumped.

    `links` by name. In an actual state, `foreign` are links in our way and the rest holds only what is marked ours.
    `containers` by veth name: in a desired state, for the veths whose namespace is known.
    `sysctls`: path below /proc/sys -> value. `firewall` is None where it was not read, or is damaged (to be set anew).
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


# --- operations: what a plan is made of, what a kernel executes ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateLink:
    """For a Veth, `container` says where its other half is born and how that is configured."""

    link: Link
    container: ContainerSide | None = None


@dataclass(frozen=True, slots=True)
class UpdateLink:
    """Bring an existing link from `actual` to `link` without re-creating it (MTU, MAC, master, port flags, up)."""

    link: Link
    actual: Link


@dataclass(frozen=True, slots=True)
class DeleteLink:
    link: Link


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
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel refused, and its words. The others of the same plan were still tried.

    `is_foreign`: there is a device of that name that is not kvnet's; it was left alone.
    """

    operation: Operation
    errno: int
    reason: str
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Hint:
    """Something of ours may have changed: look again. `devices` empty = look at everything."""

    devices: frozenset[str] = frozenset()
    firewall: bool = False


class Kernel(Protocol):
    """The only way to a kernel: the real one (`worker.kernel`) and the fake one (`datapath.fake`)."""

    async def read(self, network_id: str | None = None, *, firewall: bool = True) -> HostState:
        """What is there of ours: all of it, or one network's part. Only `sysctls` that we care about are read."""
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
