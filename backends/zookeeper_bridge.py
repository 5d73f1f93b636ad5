"""kazoo for asyncio: one client of a ZooKeeper cluster whose answers come as futures of one event loop.

kazoo lives in three threads of its own. Nothing here blocks the loop: start and stop run in a thread, at most
`MAX_IN_FLIGHT` requests are under way (kazoo wakes its thread through a pipe that blocks when it is full), answers of a
burst cross over in one callback. A client that kazoo gave up for good is made anew. Never repeats a request; never lets
kazoo log, for it would log values and passwords.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    KazooException,
    NoNodeError,
    UnimplementedError,
)
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry

from backends.medium import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S
from backends.store import Refused, StoreError, Unavailable, Unknown
from backends.url import ServerUrl
from backends.zookeeper_errors import store_error
from backends.zookeeper_socket import Handler, Trouble
from backends.zookeeper_wire import Request

SESSION_S = 10.0
# kazoo's own default of 60 s oversleeps a short outage, and the session with it.
MAX_RETRY_S = 1.0
MAX_IN_FLIGHT = 128
# How long after a connection broke calls wait for the next one (another server, mostly); later they fail at once.
GRACE_S = 3.0
STOP_S = 2.0
REVIVE_S = 1.0
# A ZooKeeper client never goes back: it says which transaction it has seen, and a server that has not hangs up on it
# without a word. So a ZooKeeper that was wiped, or restored, would never be met again. After so long without a
# connection, and so many attempts at one address (that is, at all of them) the client forgets what it has seen. Nothing
# rests on that: every read follows a barrier, so a server that is merely late cannot mislead a client without memory.
FORGET_AFTER_S = 5.0
FORGET_ROUNDS = 2
# A server that vanishes in the middle of a login looks to kazoo like a refusal: believed when it comes again and again.
REFUSALS = 3


class _Answer:
    """What kazoo takes for its AsyncResult; called in its threads."""

    __slots__ = ("_bridge", "future", "holds_slot", "is_there")

    def __init__(self, bridge: Bridge, future: asyncio.Future[Any], *, holds_slot: bool) -> None:
        self._bridge = bridge
        self.future = future
        self.holds_slot = holds_slot
        self.is_there = False

    def set(self, value: Any = None) -> None:
        self._bridge.post(self._bridge.deliver, self, value, None)

    def set_exception(self, error: BaseException) -> None:
        self._bridge.post(self._bridge.deliver, self, None, error)


class Bridge:
    """Belongs to the loop that made it. `on_change` is called there whenever the connection's state changes."""

    def __init__(self, url: ServerUrl, rng: random.Random) -> None:
        self.url = url
        self.is_closed = False
        self.troubles: list[Trouble] = []
        self.attempts: Counter[str] = Counter()
        self.refusals = 0
        self.drops = 0
        self._is_up = False
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._dropped_at = self._loop.time()
        self._crossing: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_armed = False
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._listeners: set[Callable[[], None]] = set()
        self._died = asyncio.Event()
        self._hung_up = 0  # attempts since the connection was lost that found a server, and no more
        self._reviver: asyncio.Task[None] | None = None
        self._handler, self._client = self._make()

    # In kazoo's threads.

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        self._crossing.append((function, arguments))
        if not self._is_armed:
            self._is_armed = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._drain)

    def _on_state(self, state: str) -> None:
        self.post(self._changed, state, self._client.client_state)

    def _on_trouble(self, place: str, trouble: Trouble | None) -> None:
        self.post(self._attempted, place, trouble)

    # On the loop.

    def _drain(self) -> None:
        self._is_armed = False
        while self._crossing:
            function, arguments = self._crossing.popleft()
            function(*arguments)

    def deliver(self, answer: _Answer, value: Any, error: BaseException | None) -> None:
        if answer.is_there:
            return  # kazoo answers twice when it is closed meanwhile
        answer.is_there = True
        if answer.holds_slot:
            self._slots.release()
        future = answer.future
        if error is None:
            self.refusals = 0
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
            # Who asked may have failed meanwhile, with another answer: then nobody takes this one, which is no news.
            future.exception()

    def _changed(self, state: str, keeper_state: str) -> None:
        if state != KazooState.CONNECTED:
            self.drops += 1
            self._dropped_at = self._loop.time() if self._is_up else self._dropped_at
        self._is_up = state == KazooState.CONNECTED
        if state == KazooState.LOST:
            if keeper_state == KeeperState.AUTH_FAILED:
                self.refusals += 1
            if keeper_state in {KeeperState.AUTH_FAILED, KeeperState.CLOSED} and not self.is_closed:
                self._died.set()
        elif state == KazooState.CONNECTED:
            self.attempts.clear()
            self.troubles.clear()
            self._hung_up = 0
        self._tell()

    def _attempted(self, place: str, trouble: Trouble | None) -> None:
        if trouble is None:
            self.attempts[place] += 1
            self._hung_up += 1
            if self._is_refused_for_its_past():
                self._client.last_zxid = 0  # kazoo reads it for every attempt
        else:
            self.troubles = [*self.troubles[-9:], trouble]
            self._hung_up -= 1
        self._tell()

    def _is_refused_for_its_past(self) -> bool:
        """Servers take connections and hang up, all of them for long. (They do so without a quorum, too.)"""
        return (
            not self._is_up
            and not self.is_closed
            and bool(self._client.last_zxid)
            and self._loop.time() - self._dropped_at > FORGET_AFTER_S
            and self._hung_up > 1  # beside the one that just begins
            and max(self.attempts.values()) > FORGET_ROUNDS
        )

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.add(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        self._listeners.discard(listener)

    def _make(self) -> tuple[Handler, KazooClient]:
        handler = Handler(self.url, CONNECT_TIMEOUT_S, self._on_trouble)
        client = KazooClient(
            hosts=",".join(map(str, self.url.endpoints)),
            timeout=SESSION_S,
            handler=handler,
            use_ssl=self.url.tls is not None,
            verify_certs=True,
            check_hostname=True,
            sasl_options=handler.sasl_options(),
            connection_retry=KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_delay=MAX_RETRY_S, max_jitter=0.4),
            logger=_silent(),
        )
        handler.client = client
        client.add_listener(self._on_state)
        return handler, client

    @property
    def is_connected(self) -> bool:
        return bool(self._client.connected) and not self.is_closed

    async def start(self) -> None:
        await asyncio.to_thread(self._client.start_async)
        self._reviver = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        while True:
            await self._died.wait()
            await asyncio.sleep(REVIVE_S * (0.5 + self._rng.random()))
            self._died.clear()
            await self._stop()
            self._handler, self._client = self._make()
            await asyncio.to_thread(self._client.start_async)

    async def until_connected(self) -> None:
        """
        Raises:
            Unavailable, Refused: there is no connection, and not only for a moment.
        """
        if self.is_connected:
            return
        changed = asyncio.Event()
        self.listen(changed.set)
        try:
            async with asyncio.timeout_at((self._loop.time() if self._is_up else self._dropped_at) + GRACE_S):
                while not self.is_connected:
                    if self.is_closed or self.refusals >= REFUSALS:
                        raise self.away()
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise self.away() from None
        finally:
            self.ignore(changed.set)

    async def send(self, request: Request) -> asyncio.Future[Any]:
        """On its way, in the order of the calls.

        Raises:
            Unavailable, Refused: there is no connection, or a full one; nothing was sent.
        """
        await self.until_connected()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable(f"{self.url} does not answer: {MAX_IN_FLIGHT} requests wait") from None
        try:
            return self.send_now(request, holds_slot=True)
        except StoreError:
            self._slots.release()
            raise

    def send_now(self, request: Request, *, holds_slot: bool = False) -> asyncio.Future[Any]:
        """As `send`, past the queue: for callers that bound what they have under way."""
        if not self.is_connected:
            raise self.away()
        future: asyncio.Future[Any] = self._loop.create_future()
        # Private, and the only way to send requests of one's own.
        self._client._call(request, _Answer(self, future, holds_slot=holds_slot))
        return future

    async def ask(self, request: Request) -> Any:
        """The answer to one request.

        Raises:
            NoNodeError, UnimplementedError: as the server says.
            Unavailable, Unknown, Refused, Broken: `Unknown` only for requests that may write.
        """
        return await self.answer(request, await self.send(request))

    async def answer(self, request: Request, future: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await future
        except TimeoutError:
            # It may still be in kazoo's queue, and leave when nobody waits for it any more.
            if request.is_write:
                raise Unknown(f"{self.url} did not answer within {REQUEST_TIMEOUT_S:g} s") from None
            raise Unavailable(f"{self.url} did not answer within {REQUEST_TIMEOUT_S:g} s") from None
        except (NoNodeError, UnimplementedError):
            raise
        except KazooException as error:
            raise self.translated(error, request) from error

    def translated(self, error: KazooException, request: Request) -> StoreError:
        if isinstance(error, AuthFailedError) and not request.was_sent:
            return self.away()
        return store_error(str(self.url), error, request)

    def away(self) -> StoreError:
        """Why nothing can be asked now."""
        if self.is_closed:
            return Unavailable("the store is closed")
        if self.refusals >= REFUSALS:
            return Refused(f"{self.url} does not accept the credentials")
        return Unavailable(f"no connection to {self.url}")

    async def close(self) -> None:
        """Bounded: a server that is silent does not hold it up."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._reviver is not None:
            self._reviver.cancel()
            await asyncio.gather(self._reviver, return_exceptions=True)
        await self._stop()
        self._tell()

    async def _stop(self) -> None:
        stopping = asyncio.ensure_future(asyncio.to_thread(_stop, self._client))
        await asyncio.wait([stopping], timeout=STOP_S)
        if not stopping.done():
            self._handler.abort()
            await asyncio.wait([stopping], timeout=STOP_S)


def _stop(client: KazooClient) -> None:
    # kazoo says so when its thread takes longer to end; it is a daemon and ends by itself.
    with contextlib.suppress(KazooException, OSError):
        client.stop()
        client.close()


def _silent() -> logging.Logger:
    logger = logging.Logger("kazoo of kvnet", logging.CRITICAL + 1)
    logger.addHandler(logging.NullHandler())
    return logger
