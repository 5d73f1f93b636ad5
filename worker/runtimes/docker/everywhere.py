"""Every network of the cluster in this host's Docker, once, under its own name: what has to be done for that.

Pure: from the catalogue, Docker's list and what Docker was told of follows what to do next; who does it looks again
after each step. Two hosts that make the same name at once both get here, and one of them gives its network up. Copies
bear no mark: a network of Docker's is known by the ledger, and one that the ledger has lost by its subnets. Nothing is
taken away because the store is away, or because Docker is still at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvnet.model import DockerFields, Network, NetworkState
from worker.runtimes.docker.ledger import Binding
from worker.runtimes.docker.ports import DRIVER, EngineNetwork
from worker.settings import Following

# Docker does not list what it is making yet, and its call is bound before it is answered.
IN_FLIGHT_S = 10.0
DOUBT_S = 1.0
# The catalogue may not have heard yet of a network that this host has just made.
UNSEEN_S = 5.0
# Docker still lists what it is removing; only what stays is a stray.
STRAY_S = 3.0
# A network is made anew, with fixed addresses allowed, when nobody has used it for so long after its birth or its last
# use: that makes its name mean two networks for a few milliseconds, and what a script does next comes sooner. Or none,
# for longer, where Docker has no two of a name: a command that meets that fails, so it comes when scripts are done.
FRESH_S = 0.3
QUIET_S = 2.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known at one moment.

    Attributes:
        networks: the catalogue, by id; `seen`: ids that were in it at any time.
        docker: what Docker lists of our driver, by Docker's id; `shown`: ids that it listed at any time.
        used: our ids of networks that have workloads of Docker's here; `used_at`: when they last had.
        strays: Docker's ids that have no binding, and since when that was so.
        is_believed: what is missing in the catalogue is gone.
        needs_ipv4: Docker's networks have IPv4 always.
        keeps_ids: no network is made anew for the sake of fixed addresses.
        has_namesakes: Docker may have two networks of one name.
    """

    host: str
    now: float
    networks: Mapping[str, Network]
    docker: Mapping[str, EngineNetwork]
    bindings: Mapping[str, Binding]
    following: Following = Following.ALL
    seen: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    used_at: Mapping[str, float] = field(default_factory=dict)
    strays: Mapping[str, float] = field(default_factory=dict)
    is_believed: bool = True
    needs_ipv4: bool = True
    keeps_ids: bool = False
    has_namesakes: bool = True


@dataclass(frozen=True, slots=True)
class Action:
    """`network`: our id ("" where there is none), `docker`: Docker's."""

    network: str
    docker: str = ""

    @property
    def key(self) -> str:
        """One at a time of each."""
        return self.network or self.docker


@dataclass(frozen=True, slots=True)
class Name(Action):
    """Docker has told how the network is called: tell the cluster, which may know another one of that name."""


@dataclass(frozen=True, slots=True)
class Copy(Action):
    """Docker does not have it yet."""


@dataclass(frozen=True, slots=True)
class Replace(Action):
    """Made without a subnet, so Docker refuses fixed addresses on it; a copy with the same one allows them."""


@dataclass(frozen=True, slots=True)
class Adopt(Action):
    """The ledger has lost it."""


@dataclass(frozen=True, slots=True)
class Lost(Action):
    """Docker has it no more and nobody has heard the end of it."""


@dataclass(frozen=True, slots=True)
class Remove(Action):
    """`why`: "gone", "renamed", "spare" or "unknown"."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`again_at`: when something that is waited for now may be due; `unfit`: networks that Docker cannot have."""

    actions: tuple[Action, ...]
    again_at: float | None = None
    unfit: Mapping[str, str] = field(default_factory=dict)


def decide(sight: Sight) -> Decision:
    waits: list[float] = []
    actions: list[Action] = []
    kept: dict[str, list[EngineNetwork]] = {}
    for known in sight.docker.values():
        binding = sight.bindings.get(known.id)
        found = _stray(sight, known, waits) if binding is None else _bound(sight, known, binding, kept)
        actions += [found] if found is not None else []
    for network_id, several in kept.items():
        actions += _spares(network_id, several, sight) or _replaced(sight, network_id, several[0], waits)
    actions += _lost(sight, waits)
    unfit: dict[str, str] = {}
    actions += _copies(sight, unfit)
    if not sight.is_believed:
        harmless = [action for action in actions if not isinstance(action, (Remove, Lost))]
        if len(harmless) < len(actions):
            waits.append(sight.now + DOUBT_S)  # nobody tells when the store is believed again
        actions = harmless
    return Decision(tuple(actions), min(waits, default=None), unfit)


def _bound(sight: Sight, known: EngineNetwork, binding: Binding, kept: dict[str, list[EngineNetwork]]) -> Action | None:
    network = sight.networks.get(binding.network)
    if network is None:
        is_new = binding.network not in sight.seen and sight.now - binding.since < UNSEEN_S
        return Name(binding.network, known.id) if is_new else Remove(binding.network, known.id, "gone")
    if network.state is NetworkState.NAMING:
        return Name(network.id, known.id)
    if network.state is NetworkState.ACTIVE and network.name != known.name:
        return Remove(network.id, known.id, "renamed")
    kept.setdefault(network.id, []).append(known)
    return None


def _stray(sight: Sight, known: EngineNetwork, waits: list[float]) -> Action | None:
    """Docker has it, and the ledger does not. It may be on its way out, so nothing is done at once."""
    since = sight.strays.get(known.id, sight.now)
    if sight.now - since < STRAY_S:
        waits.append(since + STRAY_S)
        return None
    network = next((n for n in sight.networks.values() if subnets_of(n) == frozenset(known.subnets)), None)
    if network is None:
        return Remove("", known.id, "unknown")
    if network.state is NetworkState.DELETING:
        return None
    is_it = network.state is NetworkState.NAMING or network.name == known.name
    is_there = any(b.network == network.id and b.docker in sight.docker for b in sight.bindings.values())
    return Adopt(network.id, known.id) if is_it and not is_there else Remove(network.id, known.id, "spare")


def _spares(network_id: str, several: Sequence[EngineNetwork], sight: Sight) -> list[Action]:
    """All but the one that is used, or else allows fixed addresses, or else is the youngest."""

    def worth(known: EngineNetwork) -> tuple[bool, bool, float]:
        binding = sight.bindings[known.id]
        return bool(known.endpoints), not binding.is_automatic, binding.since

    _, *others = sorted(several, key=worth, reverse=True)
    return [Remove(network_id, known.id, "spare") for known in others if not known.endpoints]


def _replaced(sight: Sight, network_id: str, known: EngineNetwork, waits: list[float]) -> list[Action]:
    """Soon, before anybody has used it, for its Docker id becomes another."""
    binding = sight.bindings[known.id]
    is_active = sight.networks[network_id].state is NetworkState.ACTIVE
    if sight.keeps_ids or not binding.is_automatic or not is_active or network_id in sight.used or known.endpoints:
        return []
    used_at = sight.used_at.get(network_id)  # whose last container has gone is often about to be removed
    fresh_s = FRESH_S if sight.has_namesakes else QUIET_S
    quiet_at = binding.since + fresh_s if used_at is None else used_at + QUIET_S
    if sight.now < quiet_at:
        waits.append(quiet_at)
        return []
    return [Replace(network_id, known.id)]


def _lost(sight: Sight, waits: list[float]) -> Iterator[Action]:
    for binding in sight.bindings.values():
        if binding.docker in sight.docker:
            continue
        if binding.docker not in sight.shown and sight.now - binding.since < IN_FLIGHT_S:
            waits.append(binding.since + IN_FLIGHT_S)
        else:
            yield Lost(binding.network, binding.docker)


def _copies(sight: Sight, unfit: dict[str, str]) -> Iterator[Action]:
    """A name or a subnet that Docker still shows for something else is waited for: it is on its way out, or in."""
    bound = {binding.network for binding in sight.bindings.values()}
    names = {known.name for known in sight.docker.values()}
    subnets = {subnet for known in sight.docker.values() for subnet in known.subnets}
    for network in sight.networks.values():
        if network.id in bound or network.state is not NetworkState.ACTIVE or not _is_wanted(sight, network):
            continue
        if sight.needs_ipv4 and all(subnet.cidr.version == 6 for subnet in network.subnets):
            unfit[network.id] = f"{network.name} has no IPv4 subnet, which this host's Docker cannot do without"
        elif network.name not in names and subnets.isdisjoint(subnets_of(network)):
            yield Copy(network.id)


def _is_wanted(sight: Sight, network: Network) -> bool:
    made_here = network.docker is not None and network.docker.host == sight.host
    return sight.following is Following.ALL or made_here


def subnets_of(network: Network) -> frozenset[str]:
    return frozenset(str(subnet.cidr) for subnet in network.subnets)


def copy_of(network: Network, *, may_be_second: bool = False) -> dict[str, Any]:
    """The body of `POST /networks/create`. What Docker told at its birth comes word for word: compose compares it.

    `may_be_second`: beside one of the same name (daemons since 25 refuse that whatever is said).
    """
    fields = network.docker or DockerFields(labels=network.labels)
    has_ipv6 = any(subnet.cidr.version == 6 for subnet in network.subnets)
    body: dict[str, Any] = {
        "Name": network.name,
        "CheckDuplicate": not may_be_second,
        "Driver": DRIVER,
        "Options": dict(fields.options),
        "Labels": dict(fields.labels),
        "Internal": network.internal,
        "Attachable": fields.attachable,
        "EnableIPv6": fields.ipv6 or has_ipv6,
        "IPAM": {
            "Driver": DRIVER,
            "Options": dict(fields.ipam_options),
            "Config": _ipam_config(network),
        },
    }
    if all(subnet.cidr.version == 6 for subnet in network.subnets):
        body["EnableIPv4"] = False
    return body


def _ipam_config(network: Network) -> list[dict[str, Any]]:
    """Ranges and reserved addresses only where Docker told them first; else they are none of its business."""
    config = []
    for subnet in network.subnets:
        part: dict[str, Any] = {"Subnet": str(subnet.cidr)}
        if subnet.gateway is not None:
            part["Gateway"] = str(subnet.gateway)
        if network.docker is not None and subnet.range is not None:
            part["IPRange"] = str(subnet.range)
        if network.docker is not None and subnet.reserved:
            part["AuxiliaryAddresses"] = {name: str(address) for name, address in subnet.reserved.items()}
        config.append(part)
    return config
