"""What Docker was told: which of its networks is which of ours, and which subnets it asked for and has not used yet.

On disk, because Docker never tells again (it replays nothing after a restart), and every line is written before Docker
is answered. Both halves of the runtime read it; it decides nothing, and knows nothing of endpoints: those are the
worker's attachments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from worker.disk import StateDir
from worker.log import Log


@dataclass(frozen=True, slots=True)
class Binding:
    """A network of this host's Docker.

    Attributes:
        docker: Docker's id of it; another one on every host.
        network: our id.
        subnets: the pools that Docker has of it, as CIDRs.
        gateways: by pool, as addresses.
        egress: "gateway": workloads leave through us. "gwbridge": through Docker's own bridge, which publishes too.
        internal: no way out.
        is_automatic: Docker was given no subnet, so it refuses fixed addresses on it.
        since: when it was made (Unix seconds).
    """

    docker: str
    network: str
    subnets: tuple[str, ...]
    gateways: Mapping[str, str] = field(default_factory=dict)
    egress: str = "gateway"
    internal: bool = False
    is_automatic: bool = False
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Want:
    """A pool that Docker asked for and that no network of it has yet. `hold`: "" where a network has the subnet.

    `gateway` and `reserved` are what Docker asked for in it, `range` its part for automatic choice.
    """

    cidr: str
    hold: str
    since: float
    range: str = ""
    gateway: str = ""
    reserved: tuple[str, ...] = ()
    is_automatic: bool = False


class Ledger:
    """Bindings by Docker's id, wants by CIDR."""

    def __init__(self, state: StateDir, log: Log) -> None: ...

    def load(self) -> None:
        """
        Raises:
            StateUnusable: the directory cannot be read. A damaged line is logged and left out.
        """

    def bindings(self) -> Iterator[Binding]: ...

    def binding(self, docker: str) -> Binding | None: ...

    def bindings_of(self, network: str) -> list[Binding]:
        """More than one only while one of them is replaced by another."""
        ...

    async def bind(self, binding: Binding) -> None:
        """Durably, before it returns."""

    async def unbind(self, docker: str) -> None: ...

    def want(self, cidr: str) -> Want | None: ...

    def wants(self) -> Iterator[Want]: ...

    async def keep(self, want: Want) -> None:
        """Replaces the one of the same CIDR."""

    async def drop(self, cidr: str) -> None: ...
