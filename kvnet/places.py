"""What lies where: of which model the value under a key is, and whether that one belongs there. The key says whose
value it is, and so does the value.

Readers index by the key and act by the value; one that lies under somebody else's key must be neither. Asked of every
decoded value, by controllers and workers alike, and by `kvnet check`. Pure; knows nothing of whether the rest of the
store agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kvnet import keys
from kvnet.claims import AddressClaim, HeldPorts, SubnetClaim
from kvnet.errors import StoreBroken
from kvnet.marks import Accepted, Cluster, Level, Replica, Restoring
from kvnet.model import Alive, Block, Endpoint, Host, Inventory, Network, Observed, Pool, Reclaim
from kvnet.questions import Answer, Question
from kvnet.rules import IDENTIFIER, NAME, NETWORK_ID, shown
from kvnet.security import Authentication, Token

Agrees = Callable[[str, Any], bool]

_META: Mapping[str, type[Any]] = {
    keys.CLUSTER: Cluster,
    keys.ACCEPTED: Accepted,
    keys.RESTORING: Restoring,
    keys.AUTHENTICATION: Authentication,
    keys.LEVEL: Level,
}
_MODELS: Mapping[str, type[Any]] = {
    keys.POOLS: Pool,
    keys.SUBNETS: SubnetClaim,
    keys.NETWORKS: Network,
    keys.ENDPOINTS: Endpoint,
    keys.ADDRESSES: AddressClaim,
    keys.BLOCKS: Block,
    keys.PORTS: HeldPorts,
    keys.HOSTS: Host,
    keys.INVENTORY: Inventory,
    keys.ALIVE: Alive,
    keys.OBSERVED: Observed,
    keys.RECLAIMS: Reclaim,
    keys.TOKENS: Token,
    keys.QUESTIONS: Question,
    keys.ANSWERS: Answer,
    keys.REPLICAS: Replica,
}


def model_of(key: str) -> type[Any] | None:
    """None: it holds a bare id, or what only controllers know."""
    return _META.get(key) or _MODELS.get(key[: key.find("/") + 1])


def stored_models() -> tuple[type[Any], ...]:
    """All that `model_of` may answer."""
    return (*_META.values(), *_MODELS.values())


def require_place(key: str, value: Any) -> None:
    """
    Raises:
        StoreBroken: the key is none that kvnet writes, or the value is that of another key.
    """
    agrees = _AGREES.get(key[: key.find("/") + 1])
    if agrees is None:
        return
    try:
        is_there = agrees(key, value)
    except (ValueError, AttributeError) as error:
        raise _misplaced(key, f"no such key is written by kvnet ({error})") from error
    if not is_there:
        raise _misplaced(key, "it belongs under another key")


def _misplaced(key: str, why: str) -> StoreBroken:
    return StoreBroken(f"what is stored under {shown(key)} is not believed: {why}", fix="see 'kvnet check'")


def _named(prefix: str, attribute: str) -> Agrees:
    start = len(prefix)
    return lambda key, value: key[start:] == getattr(value, attribute)


def _is_meta(key: str, value: Any) -> bool:
    kind = _META.get(key)
    return kind is None or isinstance(value, kind)


def _is_network(key: str, value: Any) -> bool:
    """Its peers too are keys that readers follow."""
    return key == keys.network(value.id) and all(NETWORK_ID.match(peer) for peer in value.peers)


def _is_endpoint(key: str, value: Any) -> bool:
    return bool(NETWORK_ID.match(value.network)) and key == keys.endpoint(value.network, value.id)


def _is_address(key: str, value: Any) -> bool:
    place = keys.parse_address(key)
    is_one = NETWORK_ID.match(place.network) and key == keys.address(place.network, place.address)
    return bool(is_one) and "%" not in key and bool(IDENTIFIER.match(value.holder))


def _is_block(key: str, value: Any) -> bool:
    is_one = NETWORK_ID.match(value.network) and NAME.match(value.host)
    return bool(is_one) and key == keys.block(value.network, value.cidr)


def _is_bucket(key: str, value: HeldPorts) -> bool:
    place = keys.parse_ports(key)
    if key != keys.ports(place.host, place.protocol, place.first) or not NAME.match(place.host):
        return False
    end = place.first + keys.PORTS_PER_BUCKET
    return place.protocol in ("tcp", "udp") and all(place.first <= hold.port < end for hold in value.held)


_AGREES: Mapping[str, Agrees] = {
    keys.META: _is_meta,
    keys.POOLS: _named(keys.POOLS, "name"),
    keys.SUBNETS: lambda key, _: key == keys.subnet(keys.parse_subnet(key)) and "%" not in key,
    keys.NETWORKS: _is_network,
    keys.ENDPOINTS: _is_endpoint,
    keys.ADDRESSES: _is_address,
    keys.BLOCKS: _is_block,
    keys.PORTS: _is_bucket,
    keys.HOSTS: _named(keys.HOSTS, "name"),
    keys.INVENTORY: _named(keys.INVENTORY, "host"),
    keys.ALIVE: _named(keys.ALIVE, "host"),
    keys.OBSERVED: _named(keys.OBSERVED, "host"),
    keys.RECLAIMS: _named(keys.RECLAIMS, "host"),
    keys.TOKENS: _named(keys.TOKENS, "id"),
    keys.QUESTIONS: lambda key, value: key == keys.question(value.host, value.id),
    keys.ANSWERS: _named(keys.ANSWERS, "id"),
    keys.REPLICAS: _named(keys.REPLICAS, "id"),
}
