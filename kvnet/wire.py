"""The JSON of the HTTP API, as types for those who call it.

Types only: nothing here checks or converts at run time. What comes from another version may have more members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

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
    options: Mapping[str, str]
    labels: Mapping[str, str]
    force: bool
    id: str


class PortBody(TypedDict, total=False):
    port: int
    protocol: str
    host_port: int
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
    labels: Mapping[str, str]


class PoolBody(TypedDict, total=False):
    name: str
    cidr: str
    prefix_length: int
    reserved: Sequence[str]


class Condition(TypedDict):
    code: str
    detail: str
    since: str
    host: NotRequired[str]
    network: NotRequired[str]


class Subnet(TypedDict):
    cidr: str
    gateway: str | None
    range: str | None
    reserved: dict[str, str]
    used: int
    size: int


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
    options: dict[str, str]
    labels: dict[str, str]
    state: str
    created_at: str
    version: int
    endpoints: int
    hosts: list[str]
    used: int
    size: int
    conditions: list[Condition]


class Applied(TypedDict):
    converged: bool
    waiting_for: list[str]


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
    labels: dict[str, str]
    created_at: str
    version: int
    applied: Applied


class Host(TypedDict):
    name: str
    underlay: str
    mtu: int
    alive: bool
    last_seen: str | None
    endpoints: int
    networks: list[str]
    kernel: str
    version: str
    conditions: list[Condition]
    lag_revisions: int


class Pool(TypedDict):
    name: str
    cidr: str
    prefix_length: int
    reserved: list[str]
    subnets_used: int
    subnets_total: int
    version: int


class Reservation(TypedDict):
    name: str
    address: str


class Finding(TypedDict):
    invariant: str
    detail: str
    keys: list[str]
    fix: str


class CheckReport(TypedDict):
    ok: bool
    findings: list[Finding]
    revision: int
    repaired: NotRequired[int]


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """One page of a list, the cursor of the next ("" after the last), and the revision it shows."""

    items: Sequence[T_co]
    next_cursor: str
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream. `type` is "change" or "bookmark"; resume after `revision`."""

    type: str
    revision: int
    data: Mapping[str, Any]
