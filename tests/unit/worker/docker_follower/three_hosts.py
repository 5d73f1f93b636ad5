"""Three Dockers, one cluster and their users as a model: what `everywhere.decide` orders is done here step by step,
in any order, with catalogues that lag behind."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_network

from kvnet.model import DockerFields, Driver, Network, NetworkState, Subnet
from worker.runtimes.docker.everywhere import (
    Action,
    Adopt,
    Copy,
    Lost,
    Name,
    Remove,
    Replace,
    Sight,
    decide,
    subnets_of,
)
from worker.runtimes.docker.ledger import Binding
from worker.runtimes.docker.ports import EngineNetwork
from worker.runtimes.docker.steps import adopted

EPOCH = 1_800_000_000.0
NAMING_S = 60.0
HOSTS = ("h1", "h2", "h3")


@dataclass
class Host:
    name: str
    docker: dict[str, EngineNetwork] = field(default_factory=dict)
    bindings: dict[str, Binding] = field(default_factory=dict)
    strays: dict[str, float] = field(default_factory=dict)
    catalogue: dict[str, Network] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)

    def named(self, name: str) -> EngineNetwork | None:
        return next((known for known in self.docker.values() if known.name == name), None)


@dataclass
class Model:
    now: float = EPOCH
    networks: dict[str, Network] = field(default_factory=dict)
    users: set[tuple[str, str]] = field(default_factory=set)  # (our network id, host)
    hosts: dict[str, Host] = field(default_factory=lambda: {name: Host(name) for name in HOSTS})
    serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # what users do

    def create(self, host: str, name: str, octet: int) -> None:
        """`docker network create`; `octet` 0: without a subnet."""
        at = self.hosts[host]
        if at.named(name) or name in at.foreign:
            return
        cidr = f"10.{octet or self._free_octet()}.0.0/24"
        known = self._of_subnet(cidr)
        if known is None:
            made_by = DockerFields(host=host)
            known = self._made(name="", cidr=cidr, state=NetworkState.NAMING, docker=made_by)
        elif any(binding.network == known.id for binding in at.bindings.values()):
            return
        self._appears(at, name, known, is_automatic=not octet)

    def remove(self, host: str, name: str, *, is_heard: bool) -> None:
        """`docker network rm`; Docker refuses it for what its own containers use."""
        at = self.hosts[host]
        known = at.named(name)
        if known is None:
            return
        binding = at.bindings.get(known.id)
        if binding is not None and (binding.network, host) in self.users:
            return
        del at.docker[known.id]
        if is_heard and binding is not None:
            self.network_gone(at, known.id)

    def api_create(self, name: str, octet: int) -> None:
        cidr = f"10.{octet or self._free_octet()}.0.0/24"
        if self._of_subnet(cidr) is None and self._named(name) is None:
            self._made(name, cidr, NetworkState.ACTIVE, None)

    def api_delete(self, name: str) -> None:
        known = self._named(name)
        if known is not None and not self._is_used(known.id):
            del self.networks[known.id]

    def use(self, host: str, name: str) -> None:
        at = self.hosts[host]
        known = at.named(name)
        binding = at.bindings.get(known.id) if known is not None else None
        if known is None or binding is None or binding.network not in self.networks:
            return
        if self.networks[binding.network].state is NetworkState.ACTIVE:
            self.users.add((binding.network, host))
            at.docker[known.id] = replace(known, endpoints={"e": "c"})

    def unuse(self, host: str, name: str) -> None:
        at = self.hosts[host]
        for known in list(at.docker.values()):
            if known.name == name and known.id in at.bindings:
                self.users.discard((at.bindings[known.id].network, host))
                at.docker[known.id] = replace(known, endpoints={})

    def forget(self, host: str, name: str) -> None:
        """The worker's state directory loses a line."""
        at = self.hosts[host]
        known = at.named(name)
        if known is not None:
            at.bindings.pop(known.id, None)

    def end_misplaced(self) -> None:
        """Docker removes no network that its containers use: whoever uses one under a wrong name stops some day."""
        for at in self.hosts.values():
            for known in list(at.docker.values()):
                binding = at.bindings.get(known.id)
                network = self.networks.get(binding.network) if binding is not None else None
                if network is None or network.name != known.name:
                    at.docker[known.id] = replace(known, endpoints={})
                    self.users -= {(binding.network, at.name)} if binding is not None else set()

    def upkeep(self) -> None:
        """As the controllers': a network that was not named for long goes."""
        for id_, network in list(self.networks.items()):
            if network.state is NetworkState.NAMING and self.now - network.created_at > NAMING_S:
                del self.networks[id_]

    # what the follower does

    def sync(self, host: str) -> None:
        at = self.hosts[host]
        at.catalogue = dict(self.networks)
        at.seen |= self.networks.keys()

    def actions(self, host: str) -> list[Action]:
        at = self.hosts[host]
        at.strays = {id_: at.strays.get(id_, self.now) for id_ in at.docker if id_ not in at.bindings}
        used = frozenset(network for network, place in self.users if place == host)
        sight = Sight(
            host,
            self.now,
            at.catalogue,
            at.docker,
            at.bindings,
            seen=frozenset(at.seen),
            used=used,
            strays=at.strays,
        )
        found = decide(sight)
        assert len({action.docker for action in found.actions if action.docker}) == len(
            [action for action in found.actions if action.docker]
        )
        return list(found.actions)

    def act(self, host: str, which: int) -> None:
        found = self.actions(host)
        if found:
            self.do(self.hosts[host], found[which % len(found)])

    def do(self, at: Host, action: Action) -> None:
        network = self.networks.get(action.network)
        match action:
            case Name():
                self._name(at, action, network)
            case Copy():
                self._copy(at, at.catalogue[action.network])
            case Replace():
                if self._copy(at, at.catalogue[action.network], may_be_second=True):
                    self._drop(at, action.docker)
            case Adopt():
                at.bindings[action.docker] = adopted(at.catalogue[action.network], at.docker[action.docker], self.now)
            case Lost():
                self.network_gone(at, action.docker)
            case Remove(why="gone"):
                if network is None:
                    self._drop(at, action.docker)
            case Remove():
                self._drop(at, action.docker)

    def network_gone(self, at: Host, docker: str) -> None:
        """As the plugin's DeleteNetwork."""
        binding = at.bindings.pop(docker, None)
        if binding is not None and binding.network in self.networks and not self._is_used(binding.network):
            del self.networks[binding.network]

    # the cluster's and Docker's own rules

    def _name(self, at: Host, action: Name, network: Network | None) -> None:
        known = at.docker[action.docker]
        if network is None:
            return
        if network.state is not NetworkState.NAMING:
            if network.name != known.name:
                self._drop(at, action.docker)
            return
        holder = self._named(known.name)
        if holder is None:
            self.networks[network.id] = replace(network, name=known.name, state=NetworkState.ACTIVE)
            return
        self._drop(at, action.docker)
        if not self._is_used(network.id):
            self.networks.pop(network.id, None)

    def _copy(self, at: Host, network: Network, *, may_be_second: bool = False) -> bool:
        if network.name in at.foreign or (at.named(network.name) and not may_be_second):
            return False
        known = self.networks.get(network.id)
        if known is None:
            # The plugin finds no network of that subnet, and holds it: the copy becomes a network of its own.
            return False
        self._appears(at, network.name, known, is_automatic=False)
        return True

    def _drop(self, at: Host, docker: str) -> None:
        if docker in at.docker and at.docker[docker].endpoints:
            return
        at.docker.pop(docker, None)
        at.bindings.pop(docker, None)

    def _appears(self, at: Host, name: str, network: Network, *, is_automatic: bool) -> None:
        id_ = f"{next(self.serial):064x}"
        subnets = tuple(sorted(subnets_of(network)))
        at.docker[id_] = EngineNetwork(id_, name, subnets)
        at.bindings[id_] = Binding(id_, network.id, subnets, is_automatic=is_automatic, since=self.now)

    def _made(self, name: str, cidr: str, state: NetworkState, docker: DockerFields | None) -> Network:
        id_ = f"{next(self.serial):012x}"
        gateway = IPv4Address(int(ip_network(cidr).network_address) + 1)
        subnets = (Subnet(ip_network(cidr), gateway),)
        made = Network(id_, name or f"docker-{id_}", Driver.OVERLAY, subnets, self.now, state=state, docker=docker)
        self.networks[id_] = made
        return made

    def _named(self, name: str) -> Network | None:
        return next((known for known in self.networks.values() if known.name == name), None)

    def _of_subnet(self, cidr: str) -> Network | None:
        return next((known for known in self.networks.values() if cidr in subnets_of(known)), None)

    def _free_octet(self) -> int:
        return next(octet for octet in range(100, 250) if self._of_subnet(f"10.{octet}.0.0/24") is None)

    def _is_used(self, network: str) -> bool:
        return any(user == network for user, _ in self.users)
