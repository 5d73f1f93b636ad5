"""What happens, as it happens, and what happened: the stream of events and the journal of one object.

A broken stream is taken up where it broke, with the patience of somebody whose controller restarts. The lines of
server-sent events are put together here, by the rules of the HTML standard as far as kvnet's controllers use them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from kvnet.client.connection import PASSING_STATUS, Connection
from kvnet.client.places import address, given
from kvnet.errors import ControllerUnreachable, Gone, KvnetError
from kvnet.http import Lost, NotSent
from kvnet.problems import from_problem
from kvnet.wire import Event

STREAM_ATTEMPTS = 10  # of a stream that has worked: about ten seconds, enough for a controller's restart
STREAM_SILENCE_S = 45.0  # the controller sends a ping every 15 s


class Events(Connection):
    async def events(
        self,
        *,
        since: int | None = None,
        kind: str | Sequence[str] = "",
        network: str = "",
        follow: bool = True,
        tells_opening: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """What happened after revision `since`, then what happens; a broken stream is taken up where it broke.

        Without `follow` it ends with the first bookmark: everything up to then has been told. `tells_opening`: an event
        of the type "open" whenever the stream is, for those who look for themselves what is there by then.

        Raises:
            Gone: `since` is older than the journal.
        """
        failures, patience = 0, self.attempts
        while True:
            trouble: KvnetError = ControllerUnreachable(
                f"{self.url} ends the event stream at once, again and again", fix="see the controller's log"
            )
            try:
                async with aclosing(self._stream(since, kind, network)) as told:
                    async for event, position in told:
                        if event.type == "open":
                            if tells_opening:
                                yield event
                            continue
                        failures, patience, since = 0, STREAM_ATTEMPTS, position
                        yield event
                        if event.type == "bookmark" and not follow:
                            return
            except (NotSent, Lost) as error:
                trouble = self.unreachable(error)
            except KvnetError as error:
                if error.status not in PASSING_STATUS:
                    raise
                trouble = error
            failures += 1
            if failures >= patience:
                raise trouble
            await self.pause(failures)

    async def journal(
        self,
        *,
        network: str = "",
        endpoint: str = "",
        host: str = "",
        pool: str = "",
        address: str = "",
        limit: int = 0,
    ) -> dict[str, Any]:
        """The newest changes of what is named, newest first, and from which revision on changes are kept."""
        query = {"network": network, "endpoint": endpoint, "host": host, "pool": pool, "address": address}
        return await self.request("GET", "/v1/journal", query=given({**query, "limit": limit}))

    async def _stream(
        self, since: int | None, kind: str | Sequence[str], network: str
    ) -> AsyncGenerator[tuple[Event, int | None], None]:
        """Events, each with the position to resume from: several may share a revision, and only the last has its id."""
        where = address("/v1/events", given({"since": since, "kind": kind, "network": network}))
        message = _Message()
        async with self.opened(where, STREAM_SILENCE_S) as lines:
            yield Event("open", since or 0, {}), since
            async for line in lines:
                if not message.take(line):
                    continue
                if message.event == "gone":
                    raise from_problem({"code": Gone.code, **message.object()}, status=Gone.status)
                data = message.object()
                since = int(message.id) if message.id.isdecimal() else since
                yield Event(message.event, data.get("revision") or since or 0, data), since
                message = _Message()


@dataclass(slots=True)
class _Message:
    """One event as its lines come in."""

    event: str = "message"
    id: str = ""
    data: list[str] = field(default_factory=list)

    def take(self, line: bytes) -> bool:
        """True when the line ends a message that says something."""
        text = line.decode(errors="replace").removesuffix("\r")
        if not text:
            return bool(self.data)
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self.data.append(value)
        elif name == "event":
            self.event = value
        elif name == "id":
            self.id = value
        return False

    def object(self) -> dict[str, Any]:
        """Raises: Lost if it is not an object; a broken stream is then taken up again."""
        try:
            data = json.loads("\n".join(self.data))
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Lost(f"event {self.id} of the stream is damaged")
        return data
