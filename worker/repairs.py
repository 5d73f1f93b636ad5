"""What this worker put right lately: a bounded memory, for whoever looks for a fault that is gone when he looks.

Told by the chronicle of passes; forgets what is old, and the oldest where there is much. Decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datapath.objects import CreateLink, Operation
from datapath.words import describe
from worker.ports import Time

if TYPE_CHECKING:
    from datapath.trace.seen import SeenRepair

KEPT = 512
KEPT_S = 600.0
TOLD_OF_ONE = 32  # of a pass that mends a whole network, the first so many


@dataclass(frozen=True, slots=True)
class Repair:
    at: float  # monotonic
    network: str
    text: str


class Repairs:
    """`is_new`: whether a device is a workload's that came a moment ago: making that is no repair."""

    def __init__(self, time: Time, is_new: Callable[[str], bool] = lambda _: False) -> None:
        self._time = time
        self._is_new = is_new
        self._kept: deque[Repair] = deque(maxlen=KEPT)

    def note(self, network_id: str, operations: Sequence[Operation]) -> None:
        if any(isinstance(one, CreateLink) and self._is_new(one.link.name) for one in operations):
            return
        now = self._time.monotonic()
        self._kept.extend(Repair(now, network_id, describe(operation)) for operation in operations[:TOLD_OF_ONE])

    def of(self, networks: Sequence[str], words: Sequence[str]) -> Iterator[SeenRepair]:
        """Those of these networks, and of the whole host, that name one of the words; each once, the newest first."""
        from datapath.trace.seen import SeenRepair  # large, and only who traces a packet asks

        now = self._time.monotonic()
        found: dict[tuple[str, str], list[float]] = {}
        for repair in self._kept:
            is_recent = now - repair.at <= KEPT_S
            if is_recent and (not repair.network or (repair.network in networks and _names(repair.text, words))):
                found.setdefault((repair.network, repair.text), []).append(repair.at)
        for (network, text), times in sorted(found.items(), key=lambda item: -max(item[1])):
            yield SeenRepair(text, network, now - max(times), len(times), KEPT_S)


def _names(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)
