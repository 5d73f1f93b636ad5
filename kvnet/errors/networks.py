"""What networks, endpoints, addresses, ports and pools can be in the way of: mostly of one another."""

from __future__ import annotations

from kvnet.errors.base import Conflicting


class NameTaken(Conflicting):
    code = "name-taken"
    title = "The name is taken"


class AmbiguousName(Conflicting):
    code = "ambiguous-name"
    title = "The name stands for more than one thing"


class SubnetTaken(Conflicting):
    """A wanted subnet overlaps a network, a reservation, or something a host uses."""

    code = "subnet-taken"
    title = "The subnet is in use"


class SubnetsExhausted(Conflicting):
    """No free subnet of the wanted size. `context` says what blocked each candidate and the largest free block."""

    code = "subnets-exhausted"
    title = "No free subnet"


class AddressTaken(Conflicting):
    code = "address-taken"
    title = "The address is in use"


class AddressesExhausted(Conflicting):
    code = "addresses-exhausted"
    title = "No free address"


class VniTaken(Conflicting):
    code = "vni-taken"
    title = "The VNI is in use"


class BridgeTaken(Conflicting):
    """Another network's bridge has the name that was asked for."""

    code = "bridge-name-taken"
    title = "Bridge name is taken"


class PortTaken(Conflicting):
    """A host port is another endpoint's, or a program on the host listens there; says whose it is."""

    code = "port-taken"
    title = "Host port is taken"


class PortsExhausted(Conflicting):
    code = "ports-exhausted"
    title = "No free host port"


class BlockTaken(Conflicting):
    """An address of a routed network that was asked for is in another host's block."""

    code = "block-taken"
    title = "Address is in another host's block"


class BlocksExhausted(Conflicting):
    """A routed network has no block left for a host."""

    code = "blocks-exhausted"
    title = "No free block"


class HostsApart(Conflicting):
    """A routed network without tunnels cannot have endpoints on hosts that are behind a router from each other."""

    code = "hosts-apart"
    title = "Hosts are on different segments"


class Immutable(Conflicting):
    """What was to be changed cannot change while the network, or the endpoint, lives; says why for each field."""

    code = "immutable"
    title = "Cannot be changed"


class NetworkInUse(Conflicting):
    """A network with endpoints cannot be deleted; names each endpoint, its host, and when that was last seen."""

    code = "network-in-use"
    title = "The network is in use"


class NetworkDeleting(Conflicting):
    code = "network-deleting"
    title = "The network is being deleted"


class NetworkNaming(Conflicting):
    """Docker is making the network and has not told its name yet; until then nothing can join or change it."""

    code = "network-naming"
    title = "The network has no name yet"


class NetworkNamed(Conflicting):
    """A network is named once; `context` has the name that it has."""

    code = "network-named"
    title = "The network has a name already"


class HoldGone(Conflicting):
    """A subnet is held for a minute. This one was released, ran out, or was never held."""

    code = "hold-gone"
    title = "The subnet is no longer held"


class HoldMismatch(Conflicting):
    """What was held is not what the network asks for: another subnet, or for another host."""

    code = "hold-mismatch"
    title = "The hold is for something else"


class IdTaken(Conflicting):
    """An id the caller chose belongs to something else than what it asks for now."""

    code = "id-taken"
    title = "The id is taken"


class AlreadyAttached(Conflicting):
    """This namespace has that attachment already; `context` names it."""

    code = "already-attached"
    title = "It is attached already"


class HostInUse(Conflicting):
    code = "host-in-use"
    title = "The host still carries endpoints"


class PoolInUse(Conflicting):
    code = "pool-in-use"
    title = "The pool is in use"
