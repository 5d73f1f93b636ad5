"""Which etcd cluster is ours: the one met first, until it is surely gone and another stands in its place.

An endpoint of another cluster among good ones is a mistake, and never believed. But where etcd was set up anew - wiped,
or restored from a snapshot - every address leads to another cluster for good; to go on refusing it would hide that from
those who know what to do then. So it is taken when the known one was silent for a while and more than half of all
endpoints, and every one that answers, say the same. That is decided here; nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Callable

# Longer than between two signs of life of a watch: a cluster that serves one watch is not silent.
SILENT_S = 6.0
# What an endpoint said counts for so long; whoever is asked is asked about every two seconds.
RECENT_S = 10.0


class Foreign(Exception):
    """An endpoint belongs to another cluster than the known one. Never leaves the adapter."""


class Identity:
    """`id`: of whoever answered first, 0 before; replaced as described above."""

    def __init__(self, endpoints: int, clock: Callable[[], float]) -> None:
        self.id = 0
        self._endpoints = endpoints
        self._clock = clock
        self._heard_at = 0.0
        self._others: dict[str, tuple[int, float]] = {}

    def require(self, endpoint: str, found: int) -> None:
        """Look at the cluster's id in an answer.

        Raises:
            Foreign: the answer is another cluster's. Also if that one is taken for ours from now on: what was
                asked here was meant for the one before.
        """
        self.id = self.id or found
        if found in (0, self.id):
            if found:
                self._heard_at = self._clock()
                self._others.pop(endpoint, None)
            return
        known = self.id
        self._others[endpoint] = (found, self._clock())
        if self._is_successor(found):
            self.id, self._heard_at = found, self._clock()
            self._others.clear()
        raise Foreign(
            f"{endpoint} belongs to etcd cluster {found:x}, the other endpoints to {known:x}: "
            "is it an endpoint of another cluster, or was it set up anew? A new cluster is taken when more than half "
            "of the endpoints belong to it and none of the old one answers"
        )

    def _is_successor(self, candidate: int) -> bool:
        now = self._clock()
        if now - self._heard_at < SILENT_S:
            return False
        told = [found for found, at in self._others.values() if now - at < RECENT_S]
        return set(told) == {candidate} and 2 * len(told) > self._endpoints
