"""How much one host may ask of the gateway: enough for any worker, too little to keep the cluster busy.

Of one replica, in memory; the time comes in. A worker that meets a limit repeats what it was about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from backends.store import Refused, Unavailable, Write
from controller.security.limits import Buckets
from controller.state import State
from kvnet import keys

SESSIONS_AT_ONCE = 30.0
SESSIONS_PER_S = 1.0
WRITES_AT_ONCE = 60.0
WRITES_PER_S = {keys.HOSTS: 0.5, keys.INVENTORY: 0.5, keys.ALIVE: 0.5, keys.OBSERVED: 4.0}
MAX_TTL_S = 3600.0
WATCHES = 64  # of one host, and more for each network that it is in
WATCHES_PER_NETWORK = 8


class HostLimits:
    def __init__(self, state: State, monotonic: Callable[[], float]) -> None:
        self._state = state
        self._monotonic = monotonic
        self._sessions = Buckets()
        self._writes = Buckets()
        self._watches = Counter[str]()

    def require_ttl(self, ttl_s: float) -> None:
        """
        Raises:
            Refused: a dead host would be believed alive for too long.
        """
        if ttl_s > MAX_TTL_S:
            raise Refused(f"a host's session may last {MAX_TTL_S:g} s, not {ttl_s:g}")

    def count_session(self, host: str) -> None:
        """
        Raises:
            Unavailable: it opens too many.
        """
        if self._sessions.take(host, SESSIONS_PER_S, SESSIONS_AT_ONCE, self._monotonic()):
            raise Unavailable(f"host {host} opens too many sessions")

    def count_writes(self, host: str, writes: Sequence[Write]) -> None:
        """Every worker hears of every change of a record, every controller of the others.

        Raises:
            Unavailable: more than a worker has to say.
        """
        for write in writes:
            kind = write.key.partition("/")[0] + "/"
            rate = WRITES_PER_S.get(kind)
            if rate and self._writes.take(f"{kind}{host}", rate, WRITES_AT_ONCE, self._monotonic()):
                raise Unavailable(f"host {host} writes {kind} too often")

    @contextmanager
    def watch_of(self, host: str) -> Iterator[None]:
        """
        Raises:
            Unavailable: it has more than a worker needs.
        """
        most = WATCHES + WATCHES_PER_NETWORK * len(self._state.networks_on(host))
        if self._watches[host] >= most:
            raise Unavailable(f"host {host} has {most} watches open")
        self._watches[host] += 1
        try:
            yield
        finally:
            self._watches[host] -= 1
            if not self._watches[host]:
                del self._watches[host]
