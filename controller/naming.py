"""How a network gets its name after it was made: Docker tells a network's name to everybody but its driver.

Until then the network has a placeholder, takes no endpoints, and is nobody's to change; being named makes it active, in
the one commit that claims the name. Of many that are named alike at once, exactly one gets the name. Never renames.
"""

from __future__ import annotations

from dataclasses import replace

from backends.store import Absent, Conflict, Delete, Put, Revision, Unchanged, Unknown
from controller.drafts import labels_beside, require_network_name
from controller.journal import Changed
from controller.network_rules import no_network, require_name_free, require_not_going
from controller.networks import Networks
from controller.outcomes import store_errors_told
from controller.requests import Caller, NameRequest
from controller.security.host_calls import require_own_network
from controller.security.scoping import require_kept
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import Invalid, NetworkNamed
from kvnet.model import Network, NetworkState, Versioned


class Naming:
    def __init__(self, state: State, writer: Writer, networks: Networks) -> None:
        self._state = state
        self._writer = writer
        self._networks = networks

    async def name(self, name_or_id: str, request: NameRequest, caller: Caller) -> Versioned[Network]:
        """The network, active under that name. The same name again is no error, and changes nothing.

        Raises:
            Invalid: the request itself.
            NotFound, NetworkDeleting
            Forbidden: a host asks, and did not make it.
            NameTaken: names the network that has it.
            NetworkNamed: it has another name already.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        require_network_name(request.name)
        with store_errors_told():
            target = (await self._networks.fresh(name_or_id)).value
            require_own_network(caller.principal, target)
            network_id = target.id
            turns = self._writer.turns(f"network {network_id} could not be named {request.name!r}")
            while True:
                await turns.next()
                found = await self._networks.find(network_id)
                if found is None:
                    raise no_network(name_or_id)
                if not _needs_name(found.value, request.name):
                    await self._state.reached(found.version, self._state.networks)
                    return found
                named = _named(found.value, request)
                require_kept(caller.principal, found.value, named)
                try:
                    revision = await self._commit(found, named, caller)
                except Conflict as conflict:
                    if keys.name(request.name) in conflict.keys:
                        await require_name_free(self._writer.store, request.name, network_id)
                    turns.failed(conflict)
                except Unknown as error:
                    turns.failed(error)
                else:
                    await self._state.reached(revision, self._state.networks)
                    return Versioned(named, revision)

    async def _commit(self, found: Versioned[Network], named: Network, caller: Caller) -> Revision:
        key, before, after = keys.network(named.id), codec.encode(found.value), codec.encode(named)
        return await self._writer.commit(
            [Unchanged(key, found.version), Absent(keys.name(named.name))],
            [
                Put(key, after),
                Put(keys.name(named.name), named.id.encode()),
                Delete(keys.name(found.value.name)),
            ],
            caller,
            Changed("network.named", key, before, after),
        )


def _needs_name(network: Network, name: str) -> bool:
    """
    Raises:
        NetworkDeleting, NetworkNamed
        Invalid: it is the placeholder that it has.
    """
    require_not_going(network)
    if network.state is NetworkState.ACTIVE and network.name != name:
        raise NetworkNamed(
            f"network {network.id} is named {network.name!r} already",
            fix="a network keeps its name; create another one",
            context={"network": network.id, "name": network.name},
        )
    if network.state is NetworkState.NAMING and network.name == name:
        raise Invalid.field("/name", f"{name!r} stands for a name that is still to come", "give the name")
    return network.state is NetworkState.NAMING


def _named(network: Network, request: NameRequest) -> Network:
    docker = network.docker if request.docker is None else request.docker
    # Those that came from the Docker fields so far come anew from what these are now.
    before = network.docker.labels if network.docker is not None else {}
    own = {key: value for key, value in network.labels.items() if before.get(key) != value}
    labels = labels_beside(docker, {**own, **request.labels})
    return replace(network, name=request.name, state=NetworkState.ACTIVE, docker=docker, labels=labels)
