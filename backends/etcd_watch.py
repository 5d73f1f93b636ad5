"""Follows everything under the root of an etcd, over one watch.

A watch that goes silent looks like one where nothing happens, so the member is asked for a sign of life all the time.
What such an answer says of revisions is never believed: before etcd 3.4.26 and 3.5.9 it may overtake events that are
still on their way (etcd #15220). Only events, and the revision that the watch was started with, say how far one is.
"""

from __future__ import annotations

import asyncio

from backends import etcd_wire as wire
from backends.etcd_errors import Failed
from backends.etcd_identity import Foreign
from backends.etcd_link import Link, Stream
from backends.etcd_rpc import Cluster
from backends.etcd_wire import WatchAnswer
from backends.medium import REQUEST_TIMEOUT_S, SILENCE_S
from backends.store import Compacted, Refused, Revision, Unavailable

SIGN_OF_LIFE_EVERY_S = 4.0
# What etcd says of a watch that is not allowed. Before 3.5 it says so of a token that is not good, too.
_DENIED = ("permission denied", "invalid auth token", "user name is empty", "revision")


class Denied(Exception):
    """The watch is not allowed, or the token was not good. Never leaves the adapter."""


class Watch:
    """One watch on one stream. `cluster_id`: whose, once it is accepted."""

    def __init__(self, cluster: Cluster, link: Link, stream: Stream[WatchAnswer]) -> None:
        self._cluster = cluster
        self._link = link
        self._stream = stream
        self.cluster_id = 0

    async def next(self) -> WatchAnswer:
        """The next answer with something in it, or a sign of life.

        Raises:
            Compacted: its revision is not kept any more.
            Unavailable: over, or silent.
        """
        try:
            return await self._receive(SILENCE_S)
        except Denied as error:
            raise Refused(f"etcd ended the watch: {error}") from error
        except Failed as failed:
            self._cluster.leave(self._link)
            raise Unavailable(f"the watch at {self._link.name} is over: {failed.details}") from failed
        except Foreign as error:
            self._cluster.leave(self._link)
            raise Unavailable(f"the watch at {self._link.name} is over: {error}") from error

    def stop(self) -> None:
        self._stream.cancel()

    async def create(self, first: bytes, end: bytes, after: Revision) -> None:
        await self._stream.send(wire.create_watch(first, end, after + 1), REQUEST_TIMEOUT_S)
        self.cluster_id = (await self._receive(REQUEST_TIMEOUT_S)).header.cluster_id

    async def _receive(self, silence_s: float) -> WatchAnswer:
        """What is silent for that long although it was asked for a sign of life is gone."""
        loop = asyncio.get_running_loop()
        silent_at = loop.time() + silence_s
        reading = asyncio.ensure_future(self._stream.receive())
        try:
            while not reading.done():
                left_s = silent_at - loop.time()
                if left_s <= 0:
                    raise Failed("DEADLINE_EXCEEDED", f"silent for {silence_s:g} s")
                await asyncio.wait([reading], timeout=min(left_s, SIGN_OF_LIFE_EVERY_S))
                if not reading.done() and silence_s > SIGN_OF_LIFE_EVERY_S:
                    await self._stream.send(wire.ask_for_progress(), max(0.1, silent_at - loop.time()))
            answer = self._cluster.believe(self._link, reading.result())
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        if answer.canceled:  # also in the answer that says `created`
            raise _ended(answer)
        return answer


async def open_watch(cluster: Cluster, first: bytes, end: bytes, after: Revision) -> Watch:
    """A watch that was accepted.

    Raises:
        Compacted: `after` is not kept any more.
        Refused: not allowed.
        Unavailable: nobody serves.
    """
    for is_last in (False, True):
        link, stream = await cluster.open_stream(wire.WATCH)
        watch = Watch(cluster, link, stream)
        try:
            await watch.create(first, end, after)
            return watch
        except Denied as error:
            watch.stop()
            if is_last:
                raise Refused(f"etcd does not let this user watch the root: {error}") from error
            cluster.forget_token()
        except (Failed, Foreign, Compacted) as error:
            watch.stop()
            if isinstance(error, Compacted):
                raise
            cluster.leave(link)
            raise Unavailable(f"no watch at {link.name}: {error}") from error
    raise AssertionError("unreachable")


def _ended(answer: WatchAnswer) -> Exception:
    if answer.compact_revision:
        return Compacted(f"etcd keeps no history before revision {answer.compact_revision}")
    if any(word in answer.cancel_reason for word in _DENIED):
        return Denied(answer.cancel_reason)
    return Failed("UNKNOWN", answer.cancel_reason or "etcd ended it without a reason")
