"""Being woken when something happens: the controller's event stream as a bell, with the patience of a bystander.

A controller that restarts is waited for; the bell rings when the stream is open again, because what happened meanwhile
is seen by looking. Never polls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from cli.safe import safe
from kvnet.errors import ControllerUnreachable, Gone, KvnetError

if TYPE_CHECKING:
    from kvnet.client import Client

PATIENCE_S = 600.0
UNAVAILABLE = 503


class Bell:
    """Rings when the stream is open (again) and with every event; once for many that come together.

    `trouble`: why nothing is heard now; "" while something is.
    """

    def __init__(self, client: Client, kinds: Sequence[str], *, quiet: bool) -> None:
        self._client = client
        self._kinds = kinds
        self._is_told = quiet
        self.trouble = ""
        self._rung = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())
        self._listening.add_done_callback(lambda _: self._rung.set())

    async def rings(self, patience_s: float | None) -> bool:
        """False if it did not in time.

        Raises:
            KvnetError: the controller refuses it, or was away for longer than PATIENCE_S.
        """
        try:
            async with asyncio.timeout(patience_s):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        if self._listening.done():
            await self._listening
        return True

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self) -> None:
        last_heard, is_told = time.monotonic(), self._is_told
        while True:
            try:
                async for event in self._client.events(kind=self._kinds, tells_opening=True):
                    last_heard, is_told, self.trouble = time.monotonic(), self._is_told, ""
                    if event.type != "bookmark":
                        self._rung.set()
            except Gone:
                continue  # too slow, or the store went back: the bell rings as soon as the stream is open
            except KvnetError as error:
                if not is_passing(error) or time.monotonic() - last_heard > PATIENCE_S:
                    raise
                self.trouble = f"{safe(error.detail)}; waiting for it"
                if not is_told:
                    click.echo(self.trouble, err=True)
                    is_told = True
                await self._client.pause(4)


@asynccontextmanager
async def bell(client: Client, kinds: Sequence[str], *, quiet: bool = False) -> AsyncIterator[Bell]:
    """`quiet`: do not tell on stderr that the controller is away."""
    ringing = Bell(client, kinds, quiet=quiet)
    try:
        yield ringing
    finally:
        await ringing.close()


def is_passing(error: KvnetError) -> bool:
    """Whether it may be over by itself: nobody answers, or not yet."""
    return isinstance(error, ControllerUnreachable) or error.status == UNAVAILABLE
