"""What the Docker runtime needs from the rest of the worker and from Docker, as small contracts.

Tests bring their own. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kvnet.errors import KvnetError
from kvnet.model import Network, Versioned
from kvnet.wire import Endpoint, EndpointBody, EndpointPatchBody
from worker.attachments import Record

DRIVER = "kvnet"  # the name of the plugin's socket file is the driver's name
ADDRESS_SPACE = "kvnet"


class EngineAway(KvnetError):
    """Docker's API cannot be reached, or did not answer in time; what was asked may have been done."""

    code = "docker-away"
    status = 503
    title = "Docker does not answer"


class EngineRefused(KvnetError):
    """Docker said no; the detail has its words, `http` its status."""

    code = "docker-refused"
    status = 409
    title = "Docker refused"

    def __init__(self, detail: str, http: int) -> None:
        super().__init__(detail, context={"docker_status": http})
        self.http = http


class Plugin(Protocol):
    """Docker's calls, answered. The follower needs of it what Docker would have told, had it been heard."""

    async def run(self) -> None:
        """Until cancelled."""
        ...

    async def network_gone(self, docker: str) -> None:
        """Docker has this network no more: as its DeleteNetwork, which came while nobody listened.

        Raises:
            KvnetError: the controller does not answer; the binding stays, so it may be repeated.
        """
        ...

    def status(self) -> Mapping[str, Any]:
        """How many calls of which kind there were, how long they took, how many failed."""
        ...


class Workloads(Protocol):
    """Endpoints whose interface another program moves into the workload: claimed, handed over, taken back, released.

    Every method may be repeated. Raises the `KvnetError` of the problem; nothing is half done then.
    """

    async def claim(self, network: str, body: EndpointBody, *, runtime: str) -> Record:
        """Make the endpoint; `network`: id, `body` without host and id. On disk before the controller hears of it.

        When it returns, the addresses are ours (`record.answer`). The interface is not there yet.
        """
        ...

    async def call_it(self, endpoint: str, external: str) -> Record:
        """Note on disk how its runtime calls it."""
        ...

    async def hand_over(self, endpoint: str, netns: str, routes: Sequence[str] = ()) -> Record:
        """Make the interface, with its inner half (`record.interface`) in the host's namespace, configured but for
        what its runtime does: move, rename, addresses, routes, up. When it returns, this host's kernel knows every
        peer. `routes`: what its runtime will set besides, on the link, as CIDRs: a repair sets them too.

        Raises:
            NotFound: there is no such endpoint.
            KernelRefused: it cannot be built; the endpoint is claimed as before.
        """
        ...

    async def settle(self, endpoint: str) -> Record:
        """Learn what the interface is called in its namespace, so that it can be repaired there.

        Raises:
            NotFound: it is not there, or not yet.
        """
        ...

    async def add_route(self, endpoint: str, destination: str) -> Record:
        """Lead a destination (a CIDR) on the link over the interface in its namespace; a repair does so too.

        Raises:
            NotFound: as of `settle`.
            KernelRefused: it cannot be set.
        """
        ...

    async def take_back(self, endpoint: str) -> None:
        """Its workload has left: the interface goes, the endpoint stays claimed."""
        ...

    async def change(self, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        """As the controller does it; with `ports` it returns when they lead there.

        Raises:
            PortTaken: a program of this host has one of the ports; the endpoint publishes what it did before.
        """
        ...

    async def release(self, endpoint: str) -> bool:
        """Take interface and endpoint away. False: noted, and done when the controller is back."""
        ...

    def records(self) -> Sequence[Record]:
        """All of this host's, of every runtime and phase."""
        ...

    def record(self, endpoint: str) -> Record | None: ...

    def lost(self) -> Sequence[Record]:
        """Those whose interface and namespace are both gone. They stay until their runtime says that they may go."""
        ...


class Catalogue(Protocol):
    """All networks of the cluster, also those that this host takes no part in."""

    @property
    def is_in_step(self) -> bool:
        """The first list is in, and the store is heard."""
        ...

    @property
    def networks(self) -> Mapping[str, Versioned[Network]]:
        """By id."""
        ...

    def named(self, name: str) -> Network | None: ...

    def of_subnet(self, cidr: str) -> Network | None:
        """The one that has exactly this subnet, whatever its state."""
        ...

    async def changed(self, after: int) -> int:
        """Wait until something changed since the number that it returned last (0 at first)."""
        ...


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network as Docker tells of it. `endpoints`: container id (or "ep-" + endpoint id) by Docker's endpoint id."""

    id: str
    name: str
    subnets: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    endpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """`kind`: "network" or "container". `attributes` as Docker has them: "name", "container", "type" and so on."""

    kind: str
    action: str
    id: str
    attributes: Mapping[str, str]


class Engine(Protocol):
    """The local Docker's API. Raises `EngineAway` when it cannot be reached, `EngineRefused` with its words."""

    async def version(self) -> tuple[int, int]:
        """Of the API, as agreed upon anew."""
        ...

    async def identity(self) -> str:
        """Of Docker's own memory of networks: another one once that was wiped or replaced."""
        ...

    async def networks(self) -> Sequence[EngineNetwork]:
        """Those of our driver, without their endpoints."""
        ...

    async def network(self, id: str) -> EngineNetwork | None: ...

    async def create_network(self, body: Mapping[str, Any]) -> str: ...

    async def remove_network(self, id: str) -> None:
        """One that is not there is no error."""
        ...

    async def containers(self) -> Sequence[Mapping[str, Any]]:
        """The running ones, as `GET /containers/json` has them."""
        ...

    async def exited(self) -> Sequence[Mapping[str, Any]]:
        """Those that have run and do not any more, as `GET /containers/json` has them."""
        ...

    async def containers_of(self, id: str, name: str) -> Sequence[str]:
        """Ids of those that refer to the network, also of stopped ones and of those that were never started."""
        ...

    async def listed(self, id: str) -> Mapping[str, Any] | None:
        """One, running or not, as a list has it: told at once, also while it is being started."""
        ...

    async def container(self, id: str, timeout_s: float) -> Mapping[str, Any] | None:
        """While the container is being started Docker does not answer: hence the bound."""
        ...

    async def start_container(self, id: str) -> None:
        """One that runs already, or is not there, is no error."""
        ...

    def events(self) -> AsyncIterator[EngineEvent | None]:
        """None once, first: the stream is open, so nothing is missed from here on."""
        ...
