"""How often and how much: rates, failures, open streams. All of one replica, in memory, and bounded.

Pure but for what it remembers; the time comes in. Never says who is right: only that it is enough for now.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass

from controller.security.principal import Principal
from kvnet.errors import RateLimited, TooManyStreams

FAILURES = 20  # wrong credentials in a row that are answered one by one
FAILURES_PER_S = 0.5
TOLD_PER_S = 1 / 60
LONGEST_S = 86400.0  # that anybody is told to wait, however low the rate is that was stored
MAX_REMEMBERED = 4096
MAX_STREAMS = 5000

log = logging.getLogger("kvnet.security")


@dataclass(slots=True)
class Bucket:
    """Fills with `rate` a second up to `size`; each request takes one."""

    size: float
    rate: float
    level: float
    at: float

    def take(self, now: float) -> float:
        """0 if it may; else after how many seconds it may."""
        self.level = min(self.size, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        if self.level >= 1.0:
            self.level -= 1.0
            return 0.0
        return min(LONGEST_S, (1.0 - self.level) / self.rate) if self.rate > 0.0 else LONGEST_S


class Buckets:
    """A bucket for each who asks; those that were quiet for longest are forgotten first."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._most = most
        self._of: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, who: str, rate: float, size: float, now: float) -> float:
        bucket = self._of.get(who)
        if bucket is None or bucket.rate != rate:
            bucket = self._of[who] = Bucket(size, rate, size, now)
            if len(self._of) > self._most:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(who)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._of)


class Rates:
    def __init__(self) -> None:
        self._buckets = Buckets()

    def require(self, principal: Principal, now: float) -> None:
        """
        Raises:
            RateLimited
        """
        rate = principal.limits.rate
        if rate is None:
            return
        wait_s = self._buckets.take(principal.account, rate, max(1.0, rate), now)
        if wait_s:
            raise RateLimited(
                f"{principal.name!r} may make {rate:g} requests a second",
                fix=f"ask again in {wait_s:.1f} s, or for a token with a higher limit",
                context={"retry_after_s": round(wait_s, 3)},
            )


class Failures:
    """Wrong credentials, by where they come from. A good one is never refused for what others did."""

    def __init__(self) -> None:
        self._buckets = Buckets()
        self._told = Buckets()

    @property
    def remembered(self) -> int:
        """Sources."""
        return len(self._buckets)

    def note(self, source: str, now: float) -> bool:
        """Whether it has been enough from there. Told in the log now and then, never as often as they come."""
        is_enough = self._buckets.take(source, FAILURES_PER_S, FAILURES, now) > 0
        if self._told.take(source, TOLD_PER_S, 1.0, now) == 0.0:
            log.warning("credentials-refused", extra={"facts": {"source": source, "is_enough": is_enough}})
        return is_enough


class Streams:
    """Open event streams and watches, of each token and of all."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._open = Counter[str]()
        self.total = 0

    def enter(self, principal: Principal, *, is_counted: bool = True) -> None:
        """`is_counted`: among all; the watches of workers are not, there are as many as hosts make them.

        Raises:
            TooManyStreams
        """
        most = principal.limits.streams
        if most is not None and self._open[principal.account] >= most:
            raise TooManyStreams(
                f"{principal.name!r} has {most} streams open, and may not have more",
                fix="close one; the same stream can be read by many",
                context={"retry_after_s": 5},
            )
        if is_counted and self.total >= self._most:
            raise TooManyStreams(
                f"this controller has {self.total} streams open", fix="ask another one", context={"retry_after_s": 5}
            )
        self._open[principal.account] += 1
        self.total += is_counted

    def leave(self, principal: Principal, *, is_counted: bool = True) -> None:
        self.total -= is_counted
        self._open[principal.account] -= 1
        if not self._open[principal.account]:
            del self._open[principal.account]
