"""The invariants I1 to I6, looked after commit by commit: by the key layout, not by the product's own check.

Every commit is judged as it takes effect, so what holds between two commits is seen too. Keeps its own picture of who
has what; never asks a controller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from backends.store import Entry, Put, Revision, Write
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.model import Cidr, Endpoint, Network

Place = tuple[str, str]  # network, address


class Judge:
    def __init__(self, entries: Mapping[str, Entry], cool_down_s: float) -> None:
        self._entries = entries
        self._cool_down_s = cool_down_s
        self._networks: dict[str, Network] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._owners: dict[Place, str] = {}
        self._subnets: dict[Cidr, str] = {}
        self._vnis: dict[int, str] = {}
        self._names: dict[str, str] = {}
        self._under: dict[str, set[str]] = {}  # what is there of a network
        self.newest: dict[str, Revision] = {}  # of each network: what its hosts have to apply

    def hear(self, revision: Revision, before: dict[str, Entry | None], writes: Sequence[Write]) -> list[str]:
        """What this commit broke."""
        found: list[str] = []
        for write in sorted(writes, key=lambda one: isinstance(one, Put)):  # what goes makes room
            key, there = write.key, isinstance(write, Put)
            value = write.value if isinstance(write, Put) else b""
            if key.startswith(keys.NETWORKS):
                found += self._network(key, value)
            elif key.startswith(keys.ENDPOINTS):
                found += self._endpoint(key, value, revision)
            elif key.startswith((keys.ADDRESSES, keys.BLOCKS)):
                network = key.split("/")[1]
                self._note(network, key, is_there=there)
                if key.startswith(keys.ADDRESSES) and there:
                    found += self._claim(key, value, before[key])
        touched = {write.key for write in writes}
        found += self._agreements(touched)
        return found

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        return next((one for key, one in self._endpoints.items() if key.endswith(f"/{endpoint_id}")), None)

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints

    @property
    def networks(self) -> Mapping[str, Network]:
        return self._networks

    def owner(self, network: str, address: str) -> Endpoint | None:
        key = self._owners.get((network, address))
        return self._endpoints.get(key) if key is not None else None

    def _network(self, key: str, value: bytes) -> Iterator[str]:
        network_id = key.removeprefix(keys.NETWORKS)
        former = self._networks.pop(network_id, None)
        if former is not None:
            for subnet in former.subnets:
                self._subnets.pop(subnet.cidr, None)
            self._names.pop(former.name, None)
            if former.vni is not None:
                self._vnis.pop(former.vni, None)
        if not value:
            left = sorted(self._under.get(network_id, ()))
            if left:
                yield f"I6: network {network_id} is gone, and {', '.join(left[:5])} outlive it"
            return
        network = codec.decode(Network, value)
        for subnet in network.subnets:
            for other, owner in self._subnets.items():
                if other.version == subnet.cidr.version and other.overlaps(subnet.cidr):
                    yield f"I1: {subnet.cidr} of network {network_id} overlaps {other} of {owner}"
            self._subnets[subnet.cidr] = network_id
        if network.name in self._names:
            yield f"I3: {network_id} and {self._names[network.name]} are both called {network.name}"
        self._names[network.name] = network_id
        if network.vni is not None:
            if network.vni in self._vnis:
                yield f"I3: {network_id} and {self._vnis[network.vni]} both have VNI {network.vni}"
            self._vnis[network.vni] = network_id
        self._networks[network_id] = network

    def _endpoint(self, key: str, value: bytes, revision: Revision) -> Iterator[str]:
        network = key.split("/")[1]
        former = self._endpoints.pop(key, None)
        if former is not None:
            for address in former.addresses:
                if self._owners.get((network, str(address))) == key:
                    del self._owners[network, str(address)]
        self._note(network, key, is_there=bool(value))
        self.newest[network] = revision
        if not value:
            return
        endpoint = codec.decode(Endpoint, value)
        if network not in self._networks:
            yield f"I6: {key} is made in a network that does not exist"
        for address in endpoint.addresses:
            other = self._owners.get((network, str(address)))
            if other is not None:
                yield f"I2: {address} of {network} belongs to {other} and to {key}"
            self._owners[network, str(address)] = key
        self._endpoints[key] = endpoint

    def _claim(self, key: str, value: bytes, before: Entry | None) -> Iterator[str]:
        network = key.split("/")[1]
        if network not in self._networks:
            yield f"I6: {key} is claimed in a network that does not exist"
        if before is None:
            return
        former, claim = codec.decode(AddressClaim, before.value), codec.decode(AddressClaim, value)
        is_taken = ClaimKind.TOMBSTONE not in (former.kind, claim.kind)
        if is_taken and (former.kind, former.holder) != (claim.kind, claim.holder):
            yield f"I2: {key} went from {former.kind} {former.holder} straight to {claim.kind} {claim.holder}"

    def _agreements(self, touched: set[str]) -> Iterator[str]:
        """I4 and the index keys, for what this commit touched."""
        for key in sorted(touched):
            if key.startswith(keys.ENDPOINTS):
                endpoint = self._endpoints.get(key)
                if endpoint is not None:
                    yield from self._has_what_it_needs(key, endpoint)
            elif key.startswith(keys.ADDRESSES):
                yield from self._belongs(key)
            elif key.startswith(keys.LOCAL):
                yield from self._is_carried(key)
            elif key.startswith(keys.NETWORKS) and key.removeprefix(keys.NETWORKS) in self._networks:
                yield from self._is_indexed(self._networks[key.removeprefix(keys.NETWORKS)])

    def _has_what_it_needs(self, key: str, endpoint: Endpoint) -> Iterator[str]:
        for address in endpoint.addresses:
            claim = self._entries.get(keys.address(endpoint.network, address))
            held = codec.decode(AddressClaim, claim.value) if claim is not None else None
            if held is None or (held.kind, held.holder) != (ClaimKind.ENDPOINT, endpoint.id):
                yield f"I4: {key} has {address}, which is claimed by {held and held.holder}"
        local = self._entries.get(keys.local(endpoint.host, endpoint.id))
        if local is None or local.value.decode() != endpoint.network:
            yield f"I4: {key} is on {endpoint.host}, which is not told"

    def _belongs(self, key: str) -> Iterator[str]:
        entry = self._entries.get(key)
        if entry is None:
            network, address = key.split("/")[1:]
            owner = self.owner(network, address)
            if owner is not None:
                yield f"I4: {key} is gone, and {owner.id} still has it"
            return
        claim = codec.decode(AddressClaim, entry.value)
        if claim.kind is ClaimKind.ENDPOINT:
            network, address = key.split("/")[1:]
            owner = self._endpoints.get(keys.endpoint(network, claim.holder))
            if owner is None or address not in map(str, owner.addresses):
                yield f"I4: {key} is claimed by {claim.holder}, which does not have it"

    def _is_carried(self, key: str) -> Iterator[str]:
        entry = self._entries.get(key)
        _, host, endpoint_id = key.split("/")
        if entry is not None:
            owner = self._endpoints.get(keys.endpoint(entry.value.decode(), endpoint_id))
            if owner is None or owner.host != host:
                yield f"I4: {key} tells of an endpoint that is not there"

    def _is_indexed(self, network: Network) -> Iterator[str]:
        wanted = [keys.name(network.name), *(keys.subnet(subnet.cidr) for subnet in network.subnets)]
        wanted += [keys.vni(network.vni)] if network.vni is not None else []
        for key in wanted:
            entry = self._entries.get(key)
            if entry is None or network.id.encode() not in entry.value:
                yield f"I3: {key} of network {network.id} is not claimed for it"

    def _note(self, network: str, key: str, *, is_there: bool) -> None:
        if is_there:
            self._under.setdefault(network, set()).add(key)
        else:
            self._under.get(network, set()).discard(key)
