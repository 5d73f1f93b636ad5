"""Finds out who removed what a pass took out of the kernel: a removal leaves nothing that could bear a stamp.

The controller's journal knows. Asked behind the pass, once for all that a pass removed of a network, and seldom: every
host of the network asks, only for a line in its log. A line for which there is no question left, because very much is
removed, or for which the controller has no answer, is told without. Nobody else waits for any of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from kvnet.errors import KvnetError
from kvnet.http import Lost, NotSent
from worker.chronicle import Told
from worker.log import Log
from worker.ports import Backoff, Controller, Time

WAITING = 32
NAMES = 4  # of a line's removals: most often they are one request's
ANSWER_S = 1.0
PAUSE_S = 0.1
BURST = 8
PER_SECOND = 2.0
LOOKS = 4  # the controller may hear of a removal after its hosts: then its journal has it a moment later


class Allowance:
    """So many questions at once, and after that so many a second."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._left = float(BURST)
        self._at = time.monotonic()

    def take(self) -> bool:
        now = self._time.monotonic()
        self._left = min(float(BURST), self._left + PER_SECOND * (now - self._at))
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Inquiry:
    def __init__(self, controller: Controller, *, time: Time, log: Log) -> None:
        self._controller = controller
        self._time = time
        self._log = log
        self._allowance = Allowance(time)
        self._waiting: asyncio.Queue[Told] = asyncio.Queue(WAITING)

    def tell(self, told: Told) -> None:
        if told.brought.removed and not self._waiting.full():
            self._waiting.put_nowait(told)
        else:
            told.write(self._log)

    async def run(self) -> None:
        """Until cancelled; then what waits is told as it is."""
        try:
            while True:
                told = await self._waiting.get()
                told.with_ids(await self._requests_of(told)).write(self._log)
                await self._time.sleep(PAUSE_S)
        finally:
            while not self._waiting.empty():
                self._waiting.get_nowait().write(self._log)

    async def _requests_of(self, told: Told) -> Sequence[str]:
        found: Sequence[str] = ()
        with suppress(KvnetError, NotSent, Lost, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                names, pauses = told.brought.removed[-NAMES:], Backoff(PAUSE_S, ANSWER_S)
                for _ in range(LOOKS):
                    if not self._allowance.take():
                        break
                    found = await self._controller.removed_by(told.network_id, names)
                    if all(found):
                        break
                    await self._time.sleep(pauses.next(self._time))
        return [one for one in dict.fromkeys(found) if one]
