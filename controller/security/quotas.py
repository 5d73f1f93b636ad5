"""How many networks and endpoints each token owns, and how many it is about to make here.

Counted as the changes come; what is on its way on this replica counts too, so that a burst cannot pass the limit. What
is on its way on other replicas does not: the limit can be exceeded by as much as they make at the same moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from controller.security.principal import Principal
from controller.tables import Table
from kvnet.errors import QuotaExceeded
from kvnet.model import Endpoint, Network, Versioned

Versions = Versioned[Network] | Versioned[Endpoint]


class Quota:
    def __init__(self, what: str) -> None:
        self._what = what
        self._owned = Counter[str]()
        self._coming = Counter[str]()

    def note(self, before: Versions | None, after: Versions | None) -> None:
        was = "" if before is None else before.value.owner
        now = "" if after is None else after.value.owner
        if was == now:
            return
        if was:
            self._owned[was] -= 1
            if not self._owned[was]:
                del self._owned[was]
        if now:
            self._owned[now] += 1

    @contextmanager
    def coming(self, token: str, wanted: int, most: int | None) -> Iterator[int]:
        """How many of those wanted there is room for; they count until this ends, and by then they are there."""
        if most is None or not token:
            yield wanted
            return
        room = max(0, min(wanted, most - self._owned[token] - self._coming[token]))
        self._coming[token] += room
        try:
            yield room
        finally:
            self._coming[token] -= room
            if not self._coming[token]:
                del self._coming[token]

    def exceeded(self, who: Principal | None, most: int | None) -> QuotaExceeded:
        name = "" if who is None else who.name
        return QuotaExceeded(
            f"{name!r} may own {most} {self._what}, and has as many",
            fix=f"delete some, or ask an admin for a token that may own more {self._what}",
            context={"limit": most, "of": self._what},
        )


class Quotas:
    def __init__(self, networks: Table[Network], endpoints: Table[Endpoint]) -> None:
        self.networks = Quota("networks")
        self.endpoints = Quota("endpoints")
        networks.listen(lambda _, before, after: self.networks.note(before, after))
        endpoints.listen(lambda _, before, after: self.endpoints.note(before, after))
