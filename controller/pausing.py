"""An operator's pause of a host's repairs: told to its worker, and kept in the journal with who did it.

The worker alone knows whether it is paused, and forgets it when it ends; so the journal is written when it has done
what it was told, as an event of the host whose record stays as it is. Changes nothing else in the store.
"""

from __future__ import annotations

from typing import Any

from backends.store import Conflict, Unchanged, Unknown
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.questions import Questions
from controller.requests import Caller
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys

PAUSE_S = 10.0


class Pausing:
    def __init__(self, state: State, writer: Writer, questions: Questions) -> None:
        self._state = state
        self._writer = writer
        self._questions = questions

    async def pause(self, host: str, seconds: float, caller: Caller) -> dict[str, Any]:
        """Repeating it begins the time anew.

        Raises:
            NotFound, HostSilent: as `Questions.ask`.
            TooMuchContention, StoreUnavailable, OutcomeUnknown: it is paused, and the journal may not have it.
        """
        asked = {"seconds": seconds, "by": caller.actor, "request_id": caller.request_id}
        answer = await self._questions.ask(host, "pause", asked, caller, PAUSE_S)
        await self._note(host, "host.paused", caller, seconds)
        return _told(answer)

    async def resume(self, host: str, caller: Caller) -> dict[str, Any]:
        """Of a host that is not paused nothing changes, and nothing is noted.

        Raises: as `pause`.
        """
        answer = await self._questions.ask(host, "resume", {}, caller, PAUSE_S)
        if answer.get("changed", True):
            await self._note(host, "host.resumed", caller)
        return _told(answer)

    async def _note(self, host: str, kind: str, caller: Caller, seconds: float | None = None) -> None:
        with store_errors_told():
            turns = self._writer.turns(f"{kind} of {host!r} could not be noted in the journal")
            while True:
                await turns.next()
                known = self._state.hosts.get(host)
                if known is None:
                    return  # it was removed meanwhile
                record = codec.encode(known.value)
                try:
                    key = keys.host(host)
                    after = record if seconds is None else b'%b,"paused_s":%g}' % (record[:-1], seconds)
                    change = Changed(kind, key, record, after)
                    await self._writer.commit([Unchanged(key, known.version)], [], caller, change)
                    return
                except (Conflict, Unknown) as error:
                    turns.failed(error)


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "changed"}
