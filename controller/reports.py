"""What hosts said last of each network, by network: the index over `observed/` that status and convergence ask.

Kept with every report in time that grows with the one host's networks. Says what was said, also of hosts that are down
since; never judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvnet.model import NetworkObserved, Observed, Versioned


class Reports:
    def __init__(self) -> None:
        self._of: dict[str, dict[str, NetworkObserved]] = {}
        self._attached_at: dict[str, float] = {}

    def of(self, network: str) -> Mapping[str, NetworkObserved]:
        """By host."""
        return self._of.get(network, {})

    def attached_at(self, endpoint: str) -> float | None:
        """When its host began to say that it has an interface; None if that was not seen here."""
        return self._attached_at.get(endpoint)

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
            known[host] = seen

    def _drop(self, network: str, host: str) -> None:
        known = self._of.get(network)
        if known is not None and known.pop(host, None) is not None and not known:
            del self._of[network]


def _newly_attached(before: NetworkObserved, after: NetworkObserved) -> Iterator[str]:
    """What has an interface now and had none, of what was told by name."""
    named = {*(before.unattached or ()), *(after.attached or ())}
    return (one for one in named if before.has_interface(one) is False and after.has_interface(one))
