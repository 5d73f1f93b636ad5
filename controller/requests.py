"""What the outside asks of the use cases, as it was asked: addresses and CIDRs are still text.

The use cases parse and judge; a caller only fills these in. Nothing here looks at the store or knows HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.security.principal import Principal
from controller.views import Finding
from kvnet.model import DockerFields


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for the journal. `source` is where from: an address, "cli", "upkeep".

    `trace`: the traceparent of the request's span; "" where nothing is traced.
    `claimed`: who a proven caller says that it asks for. `principal`: None for the controller's own work.
    """

    actor: str
    request_id: str
    source: str = ""
    trace: str = ""
    claimed: str = ""
    principal: Principal | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SubnetRequest:
    """`range` bounds automatic choice; `reserved` maps a name to an address that is never handed out."""

    cidr: str
    gateway: str | None = None
    range: str | None = None
    reserved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Features:
    """What networks can have beside addresses, each for some drivers; None = not said. See `kvnet.model.Network`."""

    icc: bool | None = None
    masquerade: bool | None = None
    bridge_name: str | None = None
    interface_prefix: str | None = None
    host_binding: str | None = None
    uplink: str | None = None
    uplink_mode: str | None = None
    shim: bool | None = None
    block_prefix_length: int | None = None
    block_prefix_length6: int | None = None
    cross_segment: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """No subnets: kvnet chooses from `pool` and `pool6` (default: the pools `default` and `default6`).

    `ipv6`: None = dual stack when subnets are chosen (but not for `routed`), as given when they are explicit; True and
    False force it.
    `force` accepts explicit subnets that overlap what a host uses; the overlap is recorded as the reason.
    `id`: the same id with the same content again is the same network, not a second one.
    `holds`: whose subnets it gets; the first one's id is the network's. Without subnets they are all that it gets.
    `naming`: the name is still to come, and `name` is empty.
    """

    name: str
    driver: str = "overlay"
    subnets: tuple[SubnetRequest, ...] = ()
    pool: str | None = None
    pool6: str | None = None
    prefix_length: int | None = None
    internal: bool = False
    ipv6: bool | None = None
    mtu: int | None = None
    flood: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    id: str | None = None
    features: Features = field(default_factory=Features)
    holds: tuple[str, ...] = ()
    naming: bool = False
    docker: DockerFields | None = None


@dataclass(frozen=True, slots=True)
class NameRequest:
    """`docker`: None = as the network has it. `labels` come to those that it has."""

    name: str
    docker: DockerFields | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Without `cidr` kvnet chooses, as it does for networks. `version`: of IP; None = that of `cidr`, or 4.

    `force` accepts a subnet that overlaps what a host uses; for the hold, the network is judged by its own.
    """

    host: str
    version: int | None = None
    cidr: str | None = None
    pool: str | None = None
    prefix_length: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class PortRequest:
    """Ports of a workload that its host is to have. `port_end`: a range, one to one.

    `host_port_end` without it: any free one of that range of the host's. No host port: kvnet chooses.
    """

    port: int
    port_end: int | None = None
    protocol: str = "tcp"
    host_port: int | None = None
    host_port_end: int | None = None
    host_address: str | None = None


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """`id`: the same id with the same content again is the same endpoint, not a second one.

    `reuse`: an address that is asked for is taken even while it cools down.
    """

    host: str
    name: str
    id: str | None = None
    hostname: str = ""
    aliases: tuple[str, ...] = ()
    address: str | None = None
    address6: str | None = None
    mac: str | None = None
    ports: tuple[PortRequest, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    gateway_priority: int = 0
    reuse: bool = False


@dataclass(frozen=True, slots=True)
class ReservationRequest:
    """Without an address kvnet chooses one (IPv4 if the network has it)."""

    name: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class PoolRequest:
    name: str
    cidr: str
    prefix_length: int
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """What an earlier check found, and the revision it is true of: nothing else is to be repaired."""

    revision: int
    findings: tuple[Finding, ...]
