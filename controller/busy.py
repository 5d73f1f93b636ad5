"""What commits of this process are about to change and only one of them at a time can: a host's ports, its blocks.

Two that change one key in one batch would have to run one after the other, and the second would lose its race every
time. So who wants a key that another is just changing waits for its turn, and then decides by what the other wrote.
Says nothing of other controllers: against those only the commit's checks help. Names are keys of the store.
"""

from __future__ import annotations

from collections.abc import Collection

from controller.signal import Signal
from kvnet.errors import TooMuchContention

PATIENCE_S = 20.0


class Busy:
    def __init__(self) -> None:
        self._names: set[str] = set()
        self._given_back = Signal()
        self._times = 0

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def is_idle(self) -> bool:
        """Nobody has anything that he could give back."""
        return not self._names

    def take(self, names: Collection[str]) -> bool:
        """All of them or none. Whatever comes of it, they have to be given back."""
        if not self._names.isdisjoint(names):
            return False
        self._names.update(names)
        return True

    def give_back(self, names: Collection[str]) -> None:
        if names:
            self._names.difference_update(names)
            self._times += 1
            self._given_back.ring()

    def leave(self, names: Collection[str]) -> None:
        """What was taken in the same breath: nobody has waited for it, and nobody is woken in vain.

        Two that wait for a third would wake each other for ever.
        """
        self._names.difference_update(names)

    async def until_given_back(self) -> None:
        """Wait until somebody gave something back.

        Raises:
            TooMuchContention: nobody did for a long time.
        """
        before = self._times
        if not await self._given_back.until(lambda: self._times != before or not self._names, PATIENCE_S):
            raise TooMuchContention(
                f"others were changing the same ports or blocks for {PATIENCE_S:g} s",
                fix="nothing was changed; repeat the request, and see whether the store is slow",
            )
