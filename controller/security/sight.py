"""What somebody sees: all networks, those with certain labels, or those that a host takes part in.

One object decides, for lists, lookups, events and errors alike. What is out of sight is not there: never named, never
counted, never told apart from what does not exist. Judges what is, and of events also what was; decides nothing about
what may be done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from controller.security.principal import Principal
from controller.views import Event, HostSeen, NetworkSeen, Status
from kvnet.model import Network
from kvnet.security import Grant, Role

WITHHELD = "the details name what this credential does not see"
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_OF_NO_NETWORK = frozenset({"host", "pool"})


def has_all(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


class Networks:
    """What sight needs to know of them. `gone`: what one was when it was removed; None if nobody knows any more."""

    def __init__(
        self,
        get: Callable[[str], Network | None],
        named: Callable[[str], str | None],
        gone: Callable[[str], Mapping[str, str] | None],
        carried: Callable[[str], Mapping[str, int]],
    ) -> None:
        self.get = get
        self.named = named
        self.gone = gone
        self.carried = carried


class Sight:
    """`part`: whether the host takes part in a network; None for those who are no host."""

    def __init__(self, who: Principal, networks: Networks, part: Callable[[str], bool] | None = None) -> None:
        self._scope = dict(who.scope)
        self._networks = networks
        self._part = part
        self._has_catalogue = Grant.DOCKER in who.grants

    def sees(self, network_id: str) -> bool:
        found = self._networks.get(network_id)
        return found is not None and self.admits(found)

    def admits(self, network: Network) -> bool:
        return self._judge(network.id, network.labels)

    def saw(self, network_id: str) -> bool:
        """Also one that is gone."""
        if self._networks.get(network_id) is not None:
            return self.sees(network_id)
        labels = self._networks.gone(network_id)
        return labels is not None and self._judge(network_id, labels)

    def _judge(self, network_id: str, labels: Mapping[str, str]) -> bool:
        if self._part is None:
            return has_all(labels, self._scope)
        return self._part(network_id) or (self._has_catalogue and has_all(labels, self._scope))

    def hides(self, text: str) -> bool:
        """Whether a text names a network that is out of sight."""
        for word in _WORD.findall(text):
            network_id = word if self._networks.get(word) is not None else self._networks.named(word)
            if network_id is not None and not self.sees(network_id):
                return True
        return False

    def status(self, conditions: Status) -> Status:
        return tuple(replace(one, detail=WITHHELD) if self.hides(one.detail) else one for one in conditions)

    def event(self, event: Event) -> Event | None:
        """As it may be told; None: not at all."""
        kind = event.kind.partition(".")[0]
        if isinstance(event.after, NetworkSeen):
            seen = event.after
            return (
                replace(event, after=replace(seen, status=self.status(seen.status)))
                if self.sees(event.network)
                else None
            )
        if isinstance(event.after, HostSeen):
            return replace(event, after=self._host(event.after))
        if not event.network:
            return event if kind in _OF_NO_NETWORK else None
        if kind != "network":
            return event if self.saw(event.network) else None
        before, after = self._known(event.network, event.before), self._known(event.network, event.after)
        return None if before is None and after is None else replace(event, before=before, after=after)

    def _known(self, network_id: str, state: Any) -> dict[str, Any] | None:
        """A network as it was, if it was in sight then; without the peers that are not."""
        if not isinstance(state, dict) or not self._judge(network_id, state.get("labels") or {}):
            return None
        return {**state, "peers": [peer for peer in state.get("peers") or () if self.sees(peer)]}

    def _host(self, host: HostSeen) -> HostSeen:
        ids = {name: self._networks.named(name) for name in host.networks}
        names = tuple(name for name, id_ in ids.items() if id_ is not None and self.sees(id_))
        carried = self._networks.carried(host.name)
        return replace(
            host,
            networks=names,
            endpoints=sum(count for id_, count in carried.items() if self.sees(id_)),
            status=self.status(host.status),
        )


def is_limited(who: Principal) -> bool:
    """Whether somebody sees less than everything."""
    return bool(who.scope) or who.role is Role.HOST
