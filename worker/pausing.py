"""An operator's pause of this host's repairs: for a bounded time the worker leaves alone what others do to the kernel.

So that a fault can be looked at without the tool undoing it. What the store says is still followed: workloads come and
go as always. Ends by itself, and with the worker. The reconciler asks it before it looks for drift.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kvnet.errors import Invalid
from kvnet.model import Condition
from kvnet.moments import moment
from worker.log import Log
from worker.ports import Time

LONGEST_S = 24 * 3600.0
LONGEST_WORD = 128
CODE = "repairs-paused"


class Pause:
    """`on_change` is called when it begins or is ended; that it runs out is seen by whoever asks."""

    def __init__(self, host: str, time: Time, log: Log) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._host = host
        self._time = time
        self._log = log
        self._until = 0.0  # monotonic
        self._condition: Condition | None = None

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._time.monotonic())

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (self._condition,) if self._condition is not None and self.left_s else ()

    async def pause(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Raises: Invalid."""
        seconds = parameters.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
            raise Invalid.field("/seconds", "a pause is bounded", f"more than 0 s, at most {LONGEST_S:.0f} s")
        now = self._time.now()
        self._until = self._time.monotonic() + float(seconds)
        until = moment(now + float(seconds))
        who = _who(_word(parameters, "by"), _word(parameters, "request_id"))
        detail = f"repairs of this host are paused until {until}{who}; 'kvnet host resume {self._host}' ends that"
        self._condition = Condition(CODE, detail, now)
        self._log.warning(CODE, seconds=float(seconds), until=until, by=_word(parameters, "by") or None)
        self.on_change()
        return self.told()

    async def resume(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Repeating is no error; `changed` says whether it was paused."""
        was_paused = self.left_s > 0
        self._until = 0.0
        if was_paused:
            self._log.info("repairs-resumed")
        self.on_change()
        return {**self.told(), "changed": was_paused}

    @property
    def kinds(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]]:
        """The questions that it answers."""
        return {"pause": self.pause, "resume": self.resume}

    def told(self) -> dict[str, Any]:
        return {"host": self._host, "paused": self.left_s > 0, "seconds": round(self.left_s, 3)}


def _word(parameters: Mapping[str, Any], name: str) -> str:
    found = parameters.get(name)
    return found[:LONGEST_WORD] if isinstance(found, str) else ""


def _who(actor: str, request_id: str) -> str:
    """Nobody is named where the host itself was asked, over its socket."""
    request = f" (request {request_id})" if request_id else ""
    return f" by {actor}{request}" if actor else ""
