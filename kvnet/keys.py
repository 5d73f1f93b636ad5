"""The key layout: the only place that spells a key.

Keys are relative to the store's root (an adapter adds it), have no leading slash, and a prefix ends with one.
What is stored under a key is a model as `kvnet.codec` writes it, but for `names/`, `vnis/` and `local/`: there it is
the network's id, plain ASCII without quotes. The guards and `journal/floor` are the controller's own.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple

from kvnet.addresses import parse, text_of
from kvnet.model import Address, Cidr

CLUSTER = "meta/cluster"
ACCEPTED = "meta/accepted"
RESTORING = "meta/restoring"
LEVEL = "meta/level"
AUTHENTICATION = "meta/authentication"
SUBNET_GUARD = "guards/subnets"
RESERVATION_GUARD = "guards/reservations"
TOKEN_GUARD = "guards/tokens"
LEADER = "leader/upkeep"

META = "meta/"
GUARDS = "guards/"
LEADERS = "leader/"
POOLS = "pools/"
SUBNETS = "subnets/"
NAMES = "names/"
VNIS = "vnis/"
NETWORKS = "networks/"
ADDRESSES = "addresses/"
ENDPOINTS = "endpoints/"
LOCAL = "local/"
HOSTS = "hosts/"
INVENTORY = "inventory/"
ALIVE = "alive/"
OBSERVED = "observed/"
JOURNAL = "journal/"
RECLAIMS = "reclaims/"
BLOCKS = "blocks/"
PORTS = "ports/"
BRIDGES = "bridges/"
QUESTIONS = "questions/"
ANSWERS = "answers/"
TOKENS = "tokens/"
SECRETS = "secrets/"
SEALS = "seals/"
REPLICAS = "replicas/"

# What workers and sessions put there by themselves: says nothing of whether there is a cluster.
PASSING = (HOSTS, INVENTORY, ALIVE, OBSERVED, LEADERS, QUESTIONS, ANSWERS, REPLICAS)
# What makes a cluster: never there without its sentinel.
LASTING = (
    META,
    GUARDS,
    POOLS,
    SUBNETS,
    NAMES,
    VNIS,
    NETWORKS,
    ADDRESSES,
    ENDPOINTS,
    LOCAL,
    JOURNAL,
    RECLAIMS,
    BLOCKS,
    PORTS,
    BRIDGES,
    TOKENS,
    SECRETS,
    SEALS,
)

# Never shown to hosts, and in no backup that was not asked for it.
SECRET = (TOKENS, SECRETS)

# So many host ports share one entry under `ports/`: a range of 64 takes two.
PORTS_PER_BUCKET = 64

# Up to which revision the journal was trimmed. Under the journal's own prefix, so that one watch tells both.
JOURNAL_FLOOR = "journal/floor"


class EndpointKey(NamedTuple):
    network: str
    endpoint: str


class AddressKey(NamedTuple):
    network: str
    address: Address


class LocalKey(NamedTuple):
    host: str
    endpoint: str


class BlockKey(NamedTuple):
    network: str
    cidr: Cidr


class PortsKey(NamedTuple):
    host: str
    protocol: str
    first: int


def pool(name: str) -> str:
    return f"{POOLS}{name}"


def subnet(cidr: Cidr) -> str:
    """A CIDR has a slash of its own; '_' keeps the key one level deep."""
    return f"{SUBNETS}{cidr.network_address}_{cidr.prefixlen}"


def parse_subnet(key: str) -> Cidr:
    return ip_network(key.removeprefix(SUBNETS).replace("_", "/"))


def name(network_name: str) -> str:
    return f"{NAMES}{network_name}"


def vni(number: int) -> str:
    return f"{VNIS}{number}"


def network(network_id: str) -> str:
    return f"{NETWORKS}{network_id}"


def addresses(network_id: str) -> str:
    return f"{ADDRESSES}{network_id}/"


def address(network_id: str, value: Address) -> str:
    return f"{ADDRESSES}{network_id}/{text_of(value)}"


@lru_cache(maxsize=256)
def parse_address(key: str) -> AddressKey:
    """Kept for a moment: who hears of a claim looks at its key in two places."""
    _, network_id, text = key.split("/", 2)
    return AddressKey(network_id, parse(text))


def endpoints(network_id: str) -> str:
    return f"{ENDPOINTS}{network_id}/"


def endpoint(network_id: str, endpoint_id: str) -> str:
    return f"{ENDPOINTS}{network_id}/{endpoint_id}"


def parse_endpoint(key: str) -> EndpointKey:
    _, network_id, endpoint_id = key.split("/", 2)
    return EndpointKey(network_id, endpoint_id)


def local_of(host: str) -> str:
    return f"{LOCAL}{host}/"


def local(host: str, endpoint_id: str) -> str:
    return f"{LOCAL}{host}/{endpoint_id}"


def parse_local(key: str) -> LocalKey:
    _, host_name, endpoint_id = key.split("/", 2)
    return LocalKey(host_name, endpoint_id)


def blocks(network_id: str) -> str:
    return f"{BLOCKS}{network_id}/"


def block(network_id: str, cidr: Cidr) -> str:
    """Which host has this part of a routed network's range."""
    return f"{BLOCKS}{network_id}/{cidr.network_address}_{cidr.prefixlen}"


def parse_block(key: str) -> BlockKey:
    _, network_id, text = key.split("/", 2)
    return BlockKey(network_id, ip_network(text.replace("_", "/")))


def ports_of(host_name: str) -> str:
    return f"{PORTS}{host_name}/"


def ports(host_name: str, protocol: str, port: int) -> str:
    """The bucket of host ports that `port` is in; named by its first one."""
    return f"{PORTS}{host_name}/{protocol}_{port - port % PORTS_PER_BUCKET}"


def parse_ports(key: str) -> PortsKey:
    _, host_name, text = key.split("/", 2)
    protocol, first = text.split("_")
    return PortsKey(host_name, protocol, int(first))


def bridge(device: str) -> str:
    """The network whose bridge has this name on every host; only of names that were asked for."""
    return f"{BRIDGES}{device}"


def host(host_name: str) -> str:
    return f"{HOSTS}{host_name}"


def reclaim(host_name: str) -> str:
    return f"{RECLAIMS}{host_name}"


def inventory(host_name: str) -> str:
    return f"{INVENTORY}{host_name}"


def alive(host_name: str) -> str:
    return f"{ALIVE}{host_name}"


def observed(host_name: str) -> str:
    return f"{OBSERVED}{host_name}"


def questions_to(host_name: str) -> str:
    return f"{QUESTIONS}{host_name}/"


def replica(replica_id: str) -> str:
    """A controller that runs, under an id of this run."""
    return f"{REPLICAS}{replica_id}"


def question(host_name: str, question_id: str) -> str:
    return f"{QUESTIONS}{host_name}/{question_id}"


def answer(question_id: str) -> str:
    return f"{ANSWERS}{question_id}"


def token(token_id: str) -> str:
    return f"{TOKENS}{token_id}"


def secret(name: str) -> str:
    """What all replicas share and nobody else may know."""
    return f"{SECRETS}{name}"


def seal(number: int) -> str:
    """Sorts by number."""
    return f"{SEALS}{number:012d}"


def journal(at: float, unique: str) -> str:
    """Sorts by time: microseconds since the epoch, 16 digits until the year 2286."""
    return f"{JOURNAL}{int(at * 1e6):016d}-{unique}"
