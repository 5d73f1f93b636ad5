"""What is gathered of a host before anything is judged: plain data. None stands for what could not be looked at.

Gatherers (`gather_*.py`) fill these, checks (`checks_*.py`) read them; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datapath.rules.ruleset import Chain
from kvnet.model import Address


@dataclass(frozen=True, slots=True)
class Trial:
    """Something of the kernel's was tried in a namespace of its own. `is_possible` None: it could not be tried."""

    is_possible: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """`modules`: name -> loaded, builtin, loadable, missing or unknown. `nft`: path of the program; "" for none."""

    release: str
    trials: Mapping[str, Trial]
    modules: Mapping[str, str]
    nft: str
    nft_version: str
    iptables: Sequence[str] = ()
    capabilities: int | None = None
    is_root: bool = True
    raw_sockets: Trial = Trial(True)


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """`values`: by path below /proc/sys, without those that are not there. `neighbours`: entries now, by family.

    `forwarded`: families that networks of this host lead beyond it.
    """

    values: Mapping[str, str]
    underlay_device: str = ""
    neighbours: Mapping[int, int] = field(default_factory=dict)
    refused_neighbours: Mapping[str, int] = field(default_factory=dict)
    forwarded: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    kind: str
    mtu: int
    is_up: bool
    has_carrier: bool
    is_ours: bool
    vni: int | None = None
    port: int | None = None
    is_external: bool = False  # a VXLAN device for all VNIs of its port


@dataclass(frozen=True, slots=True)
class Holder:
    """A socket on the tunnels' port. `program` "" = the kernel itself, or it cannot be seen."""

    address: str
    program: str
    pid: int


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    underlay: Address
    mtu: int


@dataclass(frozen=True, slots=True)
class Carried:
    """A network of this host. `overhead`: of its tunnels' headers."""

    name: str
    driver: str
    mtu: int | None
    overhead: int


@dataclass(frozen=True, slots=True)
class UnderlayFacts:
    """`wanted`: as the worker was told; None = nobody said which it is, then `address` is that of the default route.

    `offloads`: of its device, by the kernel's names; empty where they cannot be read. `checksum_errors`: of UDP, since
    the start. `peers`, `networks`: None without a worker.
    """

    wanted: str | None
    address: Address | None
    device: Link | None
    links: Sequence[Link]
    holders: Sequence[Holder] | None = None
    offloads: Mapping[str, bool] = field(default_factory=dict)
    driver: str = ""
    checksum_errors: int = 0
    peers: Sequence[Peer] | None = None
    networks: Sequence[Carried] | None = None
    kernel: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class FirewallFacts:
    """`chains`: all rules that are there, kvnet's own, too; None where none can be read, and `problem` says why.

    `unread`: what else could not be read.
    """

    chains: Sequence[Chain] | None
    unread: Sequence[str] = ()
    problem: str = ""
    underlay_device: str = ""
    has_networks: bool = False
    has_worker: bool = False


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """`offset_s`: ahead of the controller, give or take `uncertainty_s`. `is_synchronised`: as the kernel says."""

    now: float
    offset_s: float | None = None
    uncertainty_s: float = 0.0
    is_synchronised: bool | None = None
    since_boot_s: float = 0.0
    is_monotonic: bool = True


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """`url`: as it may be shown; "" = none was told. `latency_ms` None: it did not answer."""

    url: str
    latency_ms: float | None = None
    problem: str = ""
    fix: str = ""
    has_cluster: bool = True
    in_step: bool | None = None
    stale_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ControllerFacts:
    """`is_named`: somebody said that it is there; else one usually is. `silent`: others that were named, too.

    `in_clear`: those that get a token over the network, not encrypted. `warnings`: of the cluster, as its status has
    them: detail and fix by code.
    """

    url: str
    latency_ms: float | None = None
    version: str = ""
    problem: str = ""
    fix: str = ""
    trouble: str = ""
    is_named: bool = True
    silent: tuple[str, ...] = ()
    in_clear: tuple[str, ...] = ()
    warnings: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateFacts:
    """`directory` "" = none was told. `is_writable` None: it is not there, or cannot be seen.

    `joined_as`: the host's name in the identity, "" for none. `certified_s`: how much longer its certificate is good;
    None = it has none. `identity_problem`: why it cannot be used.
    """

    directory: str
    exists: bool = False
    is_writable: bool | None = None
    free_bytes: int | None = None
    free_files: int | None = None
    mode: int | None = None
    socket: str = ""
    socket_mode: int | None = None
    socket_owner: int | None = None
    joined_as: str = ""
    certified_s: float | None = None
    identity_problem: str = ""


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """`is_wanted`: the worker is to serve it. `version` "" = it does not answer."""

    is_wanted: bool | None
    api: str
    has_socket: bool = False
    version: str = ""
    api_version: str = ""
    live_restore: bool | None = None
    swarm: str = ""
    has_plugin_socket: bool | None = None
    firewall: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """`status`: as the worker's own `status` has it; None without a worker. `version`: the worker's.

    `is_asked`: somebody asked whether there is one.
    """

    version: str
    socket: str = ""
    status: Mapping[str, Any] | None = None
    problem: str = ""
    fix: str = ""
    full_pass_age_s: float | None = None
    full_pass_every_s: float = 60.0
    repairs: int = 0
    links: Sequence[Link] = ()
    tables: Sequence[str] = ()
    is_asked: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """A part is None where it could not be looked at; `problems` says why, by area."""

    kernel: KernelFacts | None
    settings: SettingsFacts | None
    underlay: UnderlayFacts | None
    firewall: FirewallFacts | None
    clock: ClockFacts | None
    store: StoreFacts | None
    controller: ControllerFacts | None
    state: StateFacts | None
    docker: DockerFacts | None
    worker: WorkerFacts | None
    problems: Mapping[str, str] = field(default_factory=dict)
