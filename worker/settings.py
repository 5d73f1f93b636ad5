"""What an operator may set for a worker, and the bounds of everything that it waits for.

Plain data, checked when constructed: a wrong one is refused before anything on the host is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from backends.store import MIN_TTL_S
from kvnet.errors import Invalid
from kvnet.local import DEFAULT_SOCKET
from kvnet.rules import DEVICE, require_name
from kvnet.tls import NO_TRUST, Trust
from worker.identity import Identity
from worker.underlay import Underlay

# A path of a unix socket is at most this long (unix(7)).
MAX_SOCKET_PATH = 107
# Longer, and nobody would hear of a dead host in time to do something about it.
MAX_TTL_S = 3600.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Every duration is in seconds.

    Attributes:
        ttl_s: how soon the cluster knows that this host's worker is gone.
        full_pass_s: the whole kernel is compared with the whole desired state this often (jittered).
        inventory_s: routes and resolvers in use are looked at this often.
        report_s: `observed` is written at most this often.
        attach_s: an attach that takes longer is rolled back.
        confirm_s: a vanished namespace is looked for again after this.
        patience_s: after a start, the last known state is restored when the store has not answered by then.
        snapshot_s: the last known state is saved at most this often.
        doubt_s: how long an endpoint of uncertain fate is watched for before it is forgotten.
        retry_s, retry_max_s: first and longest pause before something that failed is tried again.
    """

    ttl_s: float = 15.0
    full_pass_s: float = 60.0
    inventory_s: float = 30.0
    report_s: float = 1.0
    attach_s: float = 20.0
    confirm_s: float = 0.25
    patience_s: float = 2.0
    snapshot_s: float = 5.0
    doubt_s: float = 10.0
    retry_s: float = 0.2
    retry_max_s: float = 15.0


class DockerMode(StrEnum):
    AUTO = "auto"  # served, and followed as soon as its API can be reached
    OFF = "off"


class Following(StrEnum):
    """Which of the cluster's networks the Docker of this host shows."""

    ALL = "all"
    OWN = "own"  # only those that were made through it


class Removal(StrEnum):
    """What `docker network rm` and `prune` on this host may remove."""

    EVERYWHERE = "everywhere"  # a network that nobody uses goes from the whole cluster
    HERE = "here"  # nothing: only `kvnet network rm` removes; Docker shows the network again


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """`api`: Docker's own socket. `plugin`: ours, where Docker looks for us.

    `keeps_ids`: a network keeps the id that Docker gave it, also where Docker then refuses fixed addresses on it.
    """

    mode: DockerMode = DockerMode.AUTO
    api: Path = Path("/run/docker.sock")
    plugin: Path = Path("/run/docker/plugins/kvnet.sock")
    networks: Following = Following.ALL
    removal: Removal = Removal.EVERYWHERE
    keeps_ids: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """`store`: empty = the gateway of `controller`. `accept_store`: forget which cluster and revision were seen.

    `cluster`: the only one whose store is believed; empty = the one that is seen first. `dns`: where names are answered
    for this host's workloads; None = nowhere. `namespace_files`: where plain namespaces are told so.
    `metrics`: HOST:PORT for Prometheus; "" = nowhere. `token` and `trust` are those of the `identity`, if it has one.
    """

    controller: str
    host: str
    underlay: Underlay
    state_dir: Path
    socket: Path = Path(DEFAULT_SOCKET)
    store: str = ""
    token: str = ""
    trust: Trust = NO_TRUST
    identity: Identity | None = None
    cluster: str = ""
    accept_store: bool = False
    timing: Timing = field(default_factory=Timing)
    docker: DockerSettings = field(default_factory=lambda: DockerSettings(DockerMode.OFF))
    dns: IPv4Address | None = None
    namespace_files: Path = Path("/etc/netns")
    metrics: str = ""

    def __post_init__(self) -> None:
        require_name(self.host, "/host")
        if not MIN_TTL_S <= self.timing.ttl_s <= MAX_TTL_S:
            raise Invalid.field("/ttl", f"a TTL of {self.timing.ttl_s:g} s", f"{MIN_TTL_S:g} to {MAX_TTL_S:g} s")
        if self.controller.partition("://")[0] not in ("http", "https", "unix"):
            raise Invalid(
                f"{self.controller!r} is not the URL of a controller",
                fix="http://HOST:PORT, https://HOST:PORT or unix:///PATH; a store is named with --store",
            )
        if self.store.startswith("memory:"):
            raise Invalid("a store in memory is empty and this worker's alone", fix="leave --store out")
        if len(str(self.socket)) > MAX_SOCKET_PATH:
            raise Invalid.field(
                "/socket", f"the path {self.socket} is too long for a socket", f"at most {MAX_SOCKET_PATH} characters"
            )

    @property
    def store_url(self) -> str:
        return self.store or self.controller

    @property
    def uses_gateway(self) -> bool:
        return not self.store


def parse_dns(text: str) -> IPv4Address | None:
    """
    Raises:
        Invalid: not an address that is only this host's: one of 169.254.0.0/16, as no neighbour of it has.
    """
    if text == "off":
        return None
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise Invalid.field("/dns", f"{text[:80]!r} is not an IPv4 address", "like 169.254.53.53, or 'off'") from error
    if not address.is_link_local:
        raise Invalid.field("/dns", f"{address} is not link-local", "one of 169.254.0.0/16, like 169.254.53.53")
    return address


def parse_underlay(text: str) -> Underlay:
    """An address, or the name of the device that has it; `NAME/4` and `NAME/6` say which family.

    Raises:
        Invalid: neither, or not an address that peers could send to.
    """
    try:
        address = ip_address(text)
    except ValueError as error:
        device, slash, version = text.partition("/")
        if DEVICE.match(device) and device != "lo" and (not slash or version in ("4", "6")):
            return Underlay(device=device, version=int(version) if version else None)
        raise Invalid.field(
            "/underlay",
            f"{text[:80]!r} is neither an IP address nor the name of a device",
            "the address that peers reach, or the device that has it, like eth0 (eth0/6 for its IPv6 address)",
        ) from error
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise Invalid.field("/underlay", f"{address} cannot be reached by peers", "a unicast address of this host")
    return Underlay(address)
