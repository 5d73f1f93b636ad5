"""What hosts said last of each network, by network: the index over `observed/` that status and convergence ask.

Kept with every report in time that grows with the one host's networks. Says what was said, also of hosts that are down
since; never judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvnet.model import NetworkObserved, Observed, Versioned

# With one of these a host has not, or not usably, what a network asks for; with others something of it is amiss.
PREVENTING = frozenset(
    {
        "another-cluster",
        "block-missing",
        "cluster-missing",
        "foreign-object",
        "forward-blocked",
        "host-name-taken",
        "kernel-lacks",
        "kernel-refused",
        "store-broken",
        "store-went-back",
        "underlay-missing",
        "uplink-down",
        "uplink-in-use",
        "uplink-missing",
        "vni-missing",
    }
)
# Those of them that are true of the whole host, in whichever network they are reported.
OF_THE_HOST = frozenset(
    {"another-cluster", "cluster-missing", "host-name-taken", "store-went-back", "underlay-missing"}
)


class Reports:
    def __init__(self) -> None:
        self._of: dict[str, dict[str, NetworkObserved]] = {}
        self._attached_at: dict[str, float] = {}
        self._cleared_at: dict[tuple[str, str], float] = {}

    def of(self, network: str) -> Mapping[str, NetworkObserved]:
        """By host."""
        return self._of.get(network, {})

    def attached_at(self, endpoint: str) -> float | None:
        """When its host began to say that it has an interface; None if that was not seen here."""
        return self._attached_at.get(endpoint)

    def cleared_at(self, network: str, host: str) -> float | None:
        """When a host began to say that nothing prevents it in a network, or ("") as a whole, after something did.

        None if that was not seen here.
        """
        return self._cleared_at.get((network, host))

    def forget(self, endpoint: str) -> None:
        self._attached_at.pop(endpoint, None)

    def put(self, host: str, before: Versioned[Observed] | None, after: Versioned[Observed] | None) -> None:
        new = after.value.networks if after is not None else {}
        for network in before.value.networks.keys() - new.keys() if before is not None else ():
            self._drop(network, host)
        for network, seen in new.items():
            known = self._of.setdefault(network, {})
            if host in known and after is not None:
                self._attached_at.update(dict.fromkeys(_newly_attached(known[host], seen), after.value.at))
                self._cleared_at.update(dict.fromkeys(_cleared(network, host, known[host], seen), after.value.at))
            known[host] = seen

    def _drop(self, network: str, host: str) -> None:
        known = self._of.get(network)
        self._cleared_at.pop((network, host), None)
        if known is not None and known.pop(host, None) is not None and not known:
            del self._of[network]


def _cleared(network: str, host: str, before: NetworkObserved, after: NetworkObserved) -> Iterator[tuple[str, str]]:
    if before.conditions and before.conditions != after.conditions:
        for place, codes in ((network, PREVENTING), ("", OF_THE_HOST)):
            had, has = (any(one.code in codes for one in told.conditions) for told in (before, after))
            if had and not has:
                yield place, host


def _newly_attached(before: NetworkObserved, after: NetworkObserved) -> Iterator[str]:
    """What has an interface now and had none, of what was told by name."""
    named = {*(before.unattached or ()), *(after.attached or ())}
    return (one for one in named if before.has_interface(one) is False and after.has_interface(one))
