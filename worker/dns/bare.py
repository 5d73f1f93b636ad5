"""Names without a dot that none of the asker's networks has: the host's resolvers may know them, mostly nobody does.

Most of them are mistyped, or of a workload that is not there yet. So nobody waits long for them, who had none is not
asked for the same again for a while, and what is said then is ours: a resolver's "no such name" may be kept by whoever
hears it, and a moment later there is such a workload.
"""

from __future__ import annotations

from worker.dns.answers import is_helpless, is_there
from worker.dns.forward import LOOK_S, Forwarder
from worker.ports import Time

PATIENCE_S = 0.3
NOBODYS_S, SILENT_S = 30.0, 5.0  # how long nobody is asked again: who said that there is none, who said nothing
MOST_NAMES = 4096


class BareNames:
    def __init__(self, forwarder: Forwarder, time: Time) -> None:
        self._forwarder = forwarder
        self._time = time
        self._nobodys: dict[str, float] = {}

    def nobodys_until(self, name: str) -> float:
        """Not to be asked before: nobody had it a moment ago, or there is nobody who answers."""
        known = self._nobodys.get(name, float("-inf"))
        return max(known, self._time.monotonic() + LOOK_S) if self._forwarder.is_silent else known

    async def ask(self, name: str, data: bytes, *, over_tcp: bool) -> bytes | None:
        """The answer of whoever knows it; None: nobody does."""
        answer = await self._forwarder.ask(data, over_tcp=over_tcp, patience_s=PATIENCE_S)
        is_told = answer is not None and not is_helpless(answer)
        if answer is not None and is_told and is_there(answer):
            return answer
        if len(self._nobodys) >= MOST_NAMES:
            self._nobodys.clear()
        self._nobodys[name] = self._time.monotonic() + (NOBODYS_S if is_told else SILENT_S)
        return None
