"""What `desired` had to leave out, in words for the operator.

Pure and without a clock: the worker turns a finding into a `Condition` of the network by adding since when it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from datapath.desired import own_record, sole_owners
from datapath.drivers import DRIVERS
from datapath.view import HostView
from kvnet.model import Driver, Host, Network


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable, as in errors: driver-not-supported, vni-missing, peer-unknown, peer-unreachable,
    shared-address."""

    network: str
    code: str
    detail: str


def findings(view: HostView, network_id: str | None = None) -> list[Finding]:
    """All findings of the networks on this host, or of one network.

    Raises:
        NotFound: as `desired`.
    """
    host = own_record(view)
    networks = [n for n in view.networks.values() if network_id in (None, n.id)]
    return [finding for network in networks for finding in _of_network(view, host, network)]


def _of_network(view: HostView, host: Host, network: Network) -> Iterator[Finding]:
    endpoints = view.endpoints.get(network.id, {})
    if not any(endpoint.host == host.name for endpoint in endpoints.values()):
        return
    if network.driver not in DRIVERS:
        detail = f"this version does not know the driver {network.driver}; update the worker"
        yield Finding(network.id, "driver-not-supported", detail)
        return
    owners = sole_owners(endpoints.values())
    for endpoint_id in sorted(endpoints.keys() - {endpoint.id for endpoint in owners}):
        detail = f"endpoint {endpoint_id} shares its MAC or an address with a newer one, which has it now"
        yield Finding(network.id, "shared-address", detail)
    if network.driver is Driver.OVERLAY:
        if network.vni is None:
            yield Finding(network.id, "vni-missing", "the overlay has no VNI, so it cannot be built")
            return
        yield from _of_peers(view, host, network, Counter(endpoint.host for endpoint in owners))


def _of_peers(view: HostView, host: Host, network: Network, carried: Counter[str]) -> Iterator[Finding]:
    family = host.underlay.version
    for name in sorted(carried.keys() - {host.name}):
        peer = view.hosts.get(name)
        lost = f"its {carried[name]} endpoint(s) cannot be reached from here"
        if peer is None:
            yield Finding(network.id, "peer-unknown", f"host {name} has not registered, so {lost}")
        elif peer.underlay.version != family:
            detail = f"host {name} has an IPv{peer.underlay.version} underlay and this one IPv{family}, so {lost}"
            yield Finding(network.id, "peer-unreachable", detail)
