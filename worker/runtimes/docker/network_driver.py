"""Docker's calls about networks: made from what it asked for before, or adopted, and let go.

Docker tells the name only afterwards, to whoever listens to its events, so a network is made nameless here. A removal
by the user is asked of the controller, which knows who else uses the network; Docker itself cannot be refused. Nothing
here calls Docker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from kvnet.errors import (
    Conflicting,
    Forbidden,
    Invalid,
    KvnetError,
    NetworkDeleting,
    NetworkInUse,
    NotFound,
    NotSupported,
)
from kvnet.model import Driver, Network, NetworkState
from kvnet.wire import NetworkBody, SubnetBody
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.departures import Departures
from worker.runtimes.docker.ledger import Binding, Ledger, OwnCalls, Want
from worker.runtimes.docker.options import EGRESS, GATEWAY, ONLY_KVNET, REMOVAL, Wishes, network_wishes
from worker.runtimes.docker.pools import described
from worker.runtimes.docker.ports import ADDRESS_SPACE, Catalogue
from worker.runtimes.docker.wire import NetworkPool, NetworkRequest
from worker.settings import Removal, Settings

# Of these kvnet has no gateway of its own, so none is asked for that the user did not name.
WITHOUT_GATEWAY = frozenset({Driver.ROUTED.value, Driver.TRANSPARENT.value})


class NetworkDriver:
    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        ledger: Ledger,
        controller: Controller,
        own: OwnCalls,
        departures: Departures,
        *,
        time: Time,
        log: Log,
    ) -> None:
        self._departures = departures
        self._settings = settings
        self._catalogue = catalogue
        self._ledger = ledger
        self._controller = controller
        self._own = own
        self._time = time
        self._log = log

    async def capabilities(self) -> Mapping[str, Any]:
        return {"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": False}

    async def create(self, request: NetworkRequest) -> Mapping[str, Any]:
        """
        Raises:
            KvnetError: nothing was made, or what was made goes by itself, for it has no name.
        """
        if self._ledger.binding(request.docker) is not None:
            return {}
        _require_ours(request.pools)
        wishes = network_wishes(request.words)
        wants = [self._want(pool) for pool in request.pools]
        if all(want.hold for want in wants):
            binding = await self._make(request, wishes, wants)
        else:
            binding = self._adopt(request, wishes, wants)
        await self._ledger.bind(binding)
        for pool in request.pools:
            await self._ledger.drop(pool.cidr)
        return {}

    async def delete(self, docker: str) -> Mapping[str, Any]:
        """Docker forgets it whatever comes of this. If it fails the binding stays, as a note that it is to go."""
        await self.gone(docker)
        return {}

    async def gone(self, docker: str) -> None:
        """Docker has this network no more: it goes from the cluster too, if that is meant and nobody uses it.

        Raises:
            KvnetError: the controller does not answer, or has not heard yet that this host's endpoints are gone; the
                binding stays, so it may be repeated.
        """
        binding = self._ledger.binding(docker)
        if binding is None:
            return
        if self._goes_everywhere(binding):
            await self._departures.over()
            try:
                await self._controller.delete_network(binding.network)
            except (NotFound, NetworkDeleting):
                pass  # somebody else did
            except NetworkInUse as error:
                if self._is_only_owed(error):
                    raise  # and again when those are gone
                self._stays(binding, error)
            except Forbidden as error:  # made on another host, which this one's credential does not speak for
                self._stays(binding, error)
        await self._ledger.unbind(docker)

    async def allocate(self) -> NoReturn:
        raise NotSupported(
            "kvnet does not serve Swarm: its networks are those of every host's own Docker",
            fix="create the network on one host, without --scope swarm; it appears on all",
        )

    def _stays(self, binding: Binding, error: KvnetError) -> None:
        self._log.info("docker-network-stays", network=binding.network, code=error.code, detail=error.detail)

    def _goes_everywhere(self, binding: Binding) -> bool:
        if self._own.is_removing(binding.docker) or self._settings.docker.removal is Removal.HERE:
            return False
        if any(other.docker != binding.docker for other in self._ledger.bindings_of(binding.network)):
            return False  # the other one takes its place
        known = self._catalogue.networks.get(binding.network)
        docker = known.value.docker if known is not None else None
        return docker is None or docker.options.get(REMOVAL) != ONLY_KVNET

    def _is_only_owed(self, error: NetworkInUse) -> bool:
        endpoints = error.context.get("endpoints", ())
        is_all = len(endpoints) == error.context.get("total")
        return is_all and all(self._departures.is_owed(str(endpoint.get("id"))) for endpoint in endpoints)

    def _want(self, pool: NetworkPool) -> Want:
        """What Docker asked for; a subnet that a network has needs no note."""
        want = self._ledger.want(pool.cidr)
        if want is not None:
            return want
        if self._catalogue.of_subnet(pool.cidr) is None:
            raise Conflicting(f"the subnet {pool.cidr} is no longer kept for this network", fix="run the command again")
        return Want(pool.cidr, "", self._time.now())

    # a new one

    async def _make(self, request: NetworkRequest, wishes: Wishes, wants: Sequence[Want]) -> Binding:
        made = await self._controller.create_network(self._body(request, wishes, wants))
        return self._binding(
            request,
            made["id"],
            wishes.egress or GATEWAY,
            internal=made["internal"],
            is_automatic=any(want.is_automatic for want in wants),
        )

    def _body(self, request: NetworkRequest, wishes: Wishes, wants: Sequence[Want]) -> NetworkBody:
        has_gateway = wishes.fields.get("driver", Driver.OVERLAY.value) not in WITHOUT_GATEWAY
        subnets = [
            _subnet(pool, want, has_gateway=has_gateway) for pool, want in zip(request.pools, wants, strict=True)
        ]
        body: NetworkBody = {
            "holds": [want.hold for want in wants],
            "naming": True,
            "subnets": subnets,
            "internal": request.internal,
            "options": wishes.options,
            "docker": {"options": dict(request.words), "ipv6": request.ipv6, "host": self._settings.host},
        }
        body.update(wishes.fields)  # type: ignore[typeddict-item]
        return body

    def _binding(
        self, request: NetworkRequest, network: str, egress: str, *, internal: bool, is_automatic: bool
    ) -> Binding:
        return Binding(
            request.docker,
            network,
            tuple(pool.cidr for pool in request.pools),
            {pool.cidr: pool.gateway for pool in request.pools if pool.gateway},
            egress,
            internal,
            is_automatic,
            self._time.now(),
        )

    # one that is there

    def _adopt(self, request: NetworkRequest, wishes: Wishes, wants: Sequence[Want]) -> Binding:
        held = [want.cidr for want in wants if want.hold]
        found = [self._catalogue.of_subnet(want.cidr) for want in wants if not want.hold]
        network = next((network for network in found if network is not None), None)
        if network is None or network.state is NetworkState.DELETING or None in found:
            raise NetworkDeleting("the network of this subnet went away meanwhile", fix="run the command again")
        have = sorted(str(subnet.cidr) for subnet in network.subnets)
        if held or sorted(want.cidr for want in wants) != have:
            flags = " ".join(f"--subnet {cidr}" for cidr in have)
            ipv6 = "--ipv6 " if network.has_ipv6 else ""
            raise Conflicting(
                f"the network {described(network)} has the subnets {', '.join(have)}, all or none of which can be used",
                fix=f"give {ipv6}{flags}, or choose other subnets",
            )
        self._require_alone(request, network)
        _require_alike(request, wishes, network)
        egress = network.docker.options.get(EGRESS, GATEWAY) if network.docker is not None else GATEWAY
        return self._binding(request, network.id, egress, internal=network.internal, is_automatic=False)

    def _require_alone(self, request: NetworkRequest, network: Network) -> None:
        is_own = any(self._own.is_posting(pool.cidr) for pool in request.pools)
        if self._ledger.bindings_of(network.id) and not is_own:
            raise Conflicting(
                f"this host's Docker has the network {described(network)} already",
                fix="use that one ('docker network ls'), or choose another --subnet",
            )


def _require_ours(pools: Sequence[NetworkPool]) -> None:
    """
    Raises:
        Invalid: other hosts' Dockers would hand out the same addresses.
    """
    if not pools:
        raise Invalid("a network needs a subnet", fix="do not use --ipv4=false without --ipv6")
    if any(pool.space != ADDRESS_SPACE for pool in pools):
        raise Invalid(
            "its addresses would be Docker's own, and the same on other hosts",
            fix="add --ipam-driver kvnet (in a compose file: ipam: {driver: kvnet})",
        )


def _require_alike(request: NetworkRequest, wishes: Wishes, network: Network) -> None:
    """The network is as it is, whatever else was said; but not the opposite of what was said.

    Raises:
        Conflicting: what was asked for would be something else.
    """
    driver = wishes.fields.get("driver", network.driver.value)
    if driver != network.driver.value:
        raise Conflicting(
            f"the network {described(network)} of this subnet is {network.driver.value}, not {driver}",
            fix=f"leave -o driver={driver} out, or choose another --subnet",
        )
    if request.internal != network.internal:
        flag = "add --internal" if network.internal else "leave --internal out"
        raise Conflicting(
            f"the network {described(network)} of this subnet is {'' if network.internal else 'not '}internal",
            fix=f"{flag}, or choose another --subnet",
        )


def _subnet(pool: NetworkPool, want: Want, *, has_gateway: bool) -> SubnetBody:
    body: SubnetBody = {"cidr": pool.cidr}
    gateway = want.gateway or (pool.gateway if has_gateway else "")
    if gateway:
        body["gateway"] = gateway
    if want.range:
        body["range"] = want.range
    if pool.reserved:
        body["reserved"] = dict(pool.reserved)
    return body
