"""Which revisions an operation lies between, by real time alone. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from tests.torture.history import Commit

FOREVER = 1 << 62


class Window:
    """Over commits in the order of their revisions."""

    def __init__(self, placed: Sequence[Commit], first: int) -> None:
        self._first = first
        by_return = sorted((c.returned, c.revision) for c in placed if c.returned is not None)
        self._returned = [returned for returned, _ in by_return]
        self._highest = list(accumulate((revision for _, revision in by_return), max))
        by_call = sorted((c.called, c.revision) for c in placed)
        self._called = [called for called, _ in by_call]
        self._lowest = list(accumulate((revision for _, revision in reversed(by_call)), min))[::-1]

    def of(self, called: int, returned: int) -> tuple[int, int]:
        """The newest revision that was acknowledged before, and the oldest that was only asked for afterwards."""
        before = bisect_left(self._returned, called)
        after = bisect_right(self._called, returned)
        low = max(self._first, self._highest[before - 1]) if before else self._first
        return low, self._lowest[after] if after < len(self._lowest) else FOREVER
