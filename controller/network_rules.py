"""What every use case asks of a network before it acts: is it there, may it be used, is a name free.

"There" is what the store itself says: for whoever lost a race, or must not be behind. Never writes.
"""

from __future__ import annotations

from collections.abc import Collection

from backends.store import Store
from controller.meant import meant
from kvnet import codec, keys
from kvnet.errors import NameTaken, NetworkDeleting, NetworkNaming, NotFound
from kvnet.model import Network, NetworkState, Versioned
from kvnet.rules import shown


async def stored_network(store: Store, network_id: str) -> Versioned[Network] | None:
    """
    Raises:
        StoreError
    """
    entry = await store.get(keys.network(network_id))
    return None if entry is None else Versioned(codec.decode(Network, entry.value), entry.version)


async def require_name_free(store: Store, name: str, network_id: str) -> None:
    """
    Raises:
        NameTaken: another network than this one has it.
        StoreError
    """
    entry = await store.get(keys.name(name))
    holder = entry.value.decode() if entry else network_id
    if holder != network_id:
        raise NameTaken(
            f"network {holder} has the name {name!r}",
            fix=f"choose another name, or look at it with 'kvnet network inspect {name}'",
            context={"name": name, "network": holder},
        )


def require_active(network: Network) -> None:
    """Raises: NetworkDeleting, NetworkNaming."""
    require_not_going(network)
    if network.state is NetworkState.NAMING:
        raise NetworkNaming(
            f"network {network.name} is being made through Docker and has no name yet",
            fix="repeat in a second; if it gets no name within a minute, it is removed",
            context={"network": network.id},
        )


def require_not_going(network: Network) -> None:
    """Raises: NetworkDeleting."""
    if network.state is NetworkState.DELETING:
        raise NetworkDeleting(
            f"network {network.name!r} is being deleted", fix="use another network, or create it again when it is gone"
        )


def no_network(name_or_id: str, known: Collection[str] = ()) -> NotFound:
    """`known`: the names that there are."""
    fix = meant(name_or_id, known, "'kvnet network ls' shows the networks")
    return NotFound(f"there is no network {shown(name_or_id)}", fix=fix)
