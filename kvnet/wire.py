"""The JSON of the HTTP API, as types for those who call it.

Types only: nothing here checks or converts at run time. What comes from another version may have more members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

T_co = TypeVar("T_co", covariant=True)


class SubnetBody(TypedDict, total=False):
    cidr: str
    gateway: str
    range: str
    reserved: Mapping[str, str]


class NetworkBody(TypedDict, total=False):
    """What a network is created from. Only the name is needed."""

    name: str
    driver: str
    subnets: Sequence[SubnetBody]
    pool: str
    pool6: str
    prefix_length: int
    internal: bool
    ipv6: bool
    mtu: int
    flood: bool
    icc: bool
    masquerade: bool
    bridge_name: str
    interface_prefix: str
    host_binding: str
    uplink: str
    uplink_mode: str
    shim: bool
    block_prefix_length: int
    block_prefix_length6: int
    cross_segment: str
    options: Mapping[str, str]
    labels: Mapping[str, str]
    force: bool
    id: str
    holds: Sequence[str]
    naming: bool
    docker: DockerBody


class DockerBody(TypedDict, total=False):
    """What only Docker knows of a network: `kvnet.model.DockerFields`."""

    options: Mapping[str, str]
    ipam_options: Mapping[str, str]
    labels: Mapping[str, str]
    attachable: bool
    ipv6: bool
    host: str


class NameBody(TypedDict, total=False):
    """The name of a network that was made without one, and what else Docker tells only then."""

    name: str
    labels: Mapping[str, str]
    docker: DockerBody


class HoldBody(TypedDict, total=False):
    """A subnet to be kept for a network that is about to be made. Without `cidr` kvnet chooses."""

    host: str
    version: int
    cidr: str
    pool: str
    prefix_length: int
    force: bool


class SubnetPatchBody(TypedDict, total=False):
    """A subnet as it is to be; without `cidr` a new one of `pool`."""

    cidr: str
    gateway: str
    range: str | None
    reserved: Mapping[str, str]
    pool: str
    prefix_length: int


class NetworkPatchBody(TypedDict, total=False):
    """A JSON merge patch of a network: None is the default again. `subnets`: all that it is to have."""

    labels: Mapping[str, str | None] | None
    options: Mapping[str, str | None] | None
    mtu: int | None
    icc: bool | None
    masquerade: bool | None
    flood: bool | None
    interface_prefix: str | None
    host_binding: str | None
    subnets: Sequence[SubnetPatchBody]
    force: bool


class PortBody(TypedDict, total=False):
    """`port_end`: a range, one to one. `host_port_end` without it: any free one of that range of the host's."""

    port: int
    port_end: int
    protocol: str
    host_port: int
    host_port_end: int
    host_address: str


class EndpointBody(TypedDict, total=False):
    """What an endpoint is created from: host and name are needed, the rest is chosen."""

    id: str
    host: str
    name: str
    hostname: str
    aliases: Sequence[str]
    address: str
    address6: str
    mac: str
    ports: Sequence[PortBody]
    gateway_priority: int
    labels: Mapping[str, str]
    reuse: bool


class EndpointPatchBody(TypedDict, total=False):
    """A JSON merge patch of an endpoint. `ports`: all that it is to publish; `reuse`: addresses that cool down, too."""

    name: str
    hostname: str | None
    aliases: Sequence[str] | None
    ports: Sequence[PortBody] | None
    gateway_priority: int | None
    labels: Mapping[str, str | None] | None
    address: str
    address6: str
    reuse: bool


class PoolBody(TypedDict, total=False):
    name: str
    cidr: str
    prefix_length: int
    reserved: Sequence[str]


class Condition(TypedDict):
    """`type`: ready, converged, problem. `status`: true, false, unknown. `host`: who reports the problem."""

    type: str
    status: str
    reason: str
    detail: str
    host: str | None
    since: str | None


class Status(TypedDict):
    """First `ready`, then `converged`, then the problems that hosts report."""

    conditions: list[Condition]


class HostProblem(TypedDict):
    code: str
    detail: str
    since: str


class HostConvergence(TypedDict):
    """`lag_seconds`: since the oldest change that it has not applied was made; None: nobody knows any more."""

    host: str
    alive: bool
    wanted: int
    applied: int
    lag_revisions: int
    lag_seconds: float | None
    problems: list[HostProblem]


class NetworkConvergence(TypedDict):
    """`converged`: no living host is behind `version`, the newest change of the network."""

    network: str
    version: int
    converged: bool
    hosts: list[HostConvergence]


class Subnet(TypedDict):
    cidr: str
    gateway: str | None
    range: str | None
    reserved: dict[str, str]
    used: int
    size: int


class Peer(TypedDict):
    id: str
    name: str


class Docker(TypedDict):
    options: dict[str, str]
    ipam_options: dict[str, str]
    labels: dict[str, str]
    attachable: bool
    ipv6: bool
    host: str


class Hold(TypedDict):
    """A subnet that is kept until `until`; a network that names the hold gets it."""

    id: str
    cidr: str
    host: str
    until: str


class Network(TypedDict):
    id: str
    name: str
    driver: str
    vni: int | None
    subnets: list[Subnet]
    internal: bool
    ipv6: bool
    mtu: int | None
    flood: bool
    icc: bool
    masquerade: bool
    bridge_name: str | None
    interface_prefix: str | None
    host_binding: str | None
    uplink: str | None
    uplink_mode: str | None
    shim: bool
    block_prefix_length: int | None
    block_prefix_length6: int | None
    cross_segment: str | None
    peers: list[Peer]
    docker: Docker | None
    options: dict[str, str]
    labels: dict[str, str]
    state: str
    created_at: str
    version: int
    endpoints: int
    hosts: list[str]
    used: int
    size: int
    applied: Applied
    status: Status


class PlannedOperation(TypedDict):
    action: str
    kind: str
    target: str
    text: str


class HostPlan(TypedDict):
    host: str
    alive: bool
    operations: list[PlannedOperation]


class PlanWarning(TypedDict):
    code: str
    detail: str
    host: str | None


class Plan(TypedDict):
    """What would come of a change. `result`: as it would be answered; None for a deletion."""

    dry_run: str
    result: dict[str, Any] | None
    hosts: list[HostPlan]
    more_hosts: int
    operations: int
    on_first_endpoint: HostPlan | None
    warnings: list[PlanWarning]


class Applied(TypedDict):
    """`away`: hosts that are down, and therefore not waited for."""

    converged: bool
    waiting_for: list[str]
    away: list[str]


class Endpoint(TypedDict):
    id: str
    network: str
    network_name: str
    host: str
    name: str
    hostname: str
    aliases: list[str]
    address: str | None
    address6: str | None
    addresses: list[str]
    mac: str
    ports: list[PortBody]
    gateway_priority: int
    labels: dict[str, str]
    created_at: str
    version: int
    applied: Applied
    status: Status


class Host(TypedDict):
    name: str
    underlay: str
    mtu: int
    abilities: list[str]
    alive: bool
    state: str
    last_seen: str | None
    down_since: str | None
    incarnation: str
    endpoints: int
    networks: list[str]
    kernel: str
    kvnet_version: str
    version: int
    lag_revisions: int
    status: Status


class HeldPort(TypedDict):
    """A host port and the endpoint that has it; `host_address` None: on all addresses of the host."""

    host: str
    protocol: str
    host_port: int
    host_address: str | None
    network: str
    network_name: str
    endpoint: str
    endpoint_name: str
    port: int | None


class Pool(TypedDict):
    name: str
    cidr: str
    prefix_length: int
    reserved: list[str]
    subnets_used: int
    subnets_total: int
    largest_free: str | None
    version: int


class Reservation(TypedDict):
    """`fixed`: part of the network's specification; it lives and dies with it."""

    network: str
    name: str
    address: str
    since: str
    fixed: bool
    version: int


class Finding(TypedDict):
    kind: str
    invariant: str
    detail: str
    keys: list[str]
    fix: str
    repairable: bool


class CheckReport(TypedDict):
    ok: bool
    findings: list[Finding]
    repaired: list[Finding]
    changed: list[Finding]
    revision: int


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """One page of a list, the cursor of the next ("" after the last), and the revision it shows."""

    items: Sequence[T_co]
    next_cursor: str
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream. `type` is "change" or "bookmark"; several changes may share a revision."""

    type: str
    revision: int
    data: Mapping[str, Any]
