"""One endpoint of an etcd cluster: its channel, and the only place that calls into grpc.

A call is made only over a connection that is there: a request that found none was surely not sent. Never decides what a
failure means, and never repeats anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

# Its C core tells the terminal about every refused connection; we tell the caller. It reads this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from backends import etcd_wire as wire
from backends.etcd_errors import NOT_SENT, Failed
from backends.etcd_wire import Answer, Message, Method
from backends.medium import CONNECT_TIMEOUT_S
from backends.url import Endpoint, Tls

T = TypeVar("T")
A = TypeVar("A", bound=Answer)
Metadata = tuple[tuple[str, str], ...]

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.keepalive_time_ms", 10_000),  # etcd hangs up on clients that ping more often than every 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it keepalive notices nothing
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),  # a page of a list, or all that a watch has to catch up with
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),  # also how long one attempt may take
    ("grpc.use_local_subchannel_pool", 1),  # two clients in a process share no connection
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)
CLOSED = "this client is closed"
SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def read_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Reads files: not for the event loop."""
    system = (ssl.get_default_verify_paths().cafile, *SYSTEM_AUTHORITIES)
    ca = tls.ca or next((file for file in system if file and os.path.exists(file)), "")
    return grpc.ssl_channel_credentials(
        root_certificates=Path(ca).read_bytes() if ca else None,
        private_key=Path(tls.key).read_bytes() if tls.key else None,
        certificate_chain=Path(tls.cert).read_bytes() if tls.cert else None,
    )


class SingleFlight(Generic[T]):
    """Work that is under way once, for all that want it. It goes on when one who waits for it is cancelled."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            # Nobody may be left to hear of its failure.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if self._task.cancelled() and not (mine and mine.cancelling()):
                raise Failed(NOT_SENT, CLOSED) from None
            raise

    async def _run(self) -> T:
        return await self._work()

    async def stop(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


class Stream(Generic[A]):
    """A call that goes on: messages both ways."""

    def __init__(self, link: Link, call: grpc.aio.StreamStreamCall[Message, A]) -> None:
        self._link = link
        self._call = call

    async def send(self, message: Message, timeout_s: float) -> None:
        with _failures(self._link):
            try:
                async with asyncio.timeout(timeout_s):
                    await self._call.write(message)
            except asyncio.InvalidStateError:  # the call is over: reading tells why
                await self._read()
            except TimeoutError:
                raise Failed("DEADLINE_EXCEEDED", f"nothing could be sent for {timeout_s:g} s") from None

    async def receive(self) -> A:
        """Cancelling it ends the call."""
        with _failures(self._link):
            return await self._read()

    async def _read(self) -> A:
        answer = await self._call.read()
        if answer is grpc.aio.EOF:
            raise Failed("UNAVAILABLE", "the server ended the stream")
        return cast(A, answer)

    def cancel(self) -> None:
        self._call.cancel()


class Link:
    """`check` makes sure of who answers, each time that a connection was made; `is_checked` says that it has."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: grpc.ChannelCredentials | None,
        check: Callable[[Link], Awaitable[None]],
    ) -> None:
        self.name = str(endpoint)
        self.endpoint = endpoint
        self.is_checked = False
        self.is_closed = False
        self._channel = (
            grpc.aio.secure_channel(self.name, credentials, options=OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(self.name, options=OPTIONS)
        )

        self._check = check
        self._reach_once = SingleFlight(self._reach)

    async def reach(self) -> None:
        """Return when there is a checked connection.

        Raises:
            Failed: NOT_SENT.
            Whatever `check` raises.
        """
        if self.is_closed:
            raise Failed(NOT_SENT, CLOSED)
        if not (self.is_checked and self.is_connected):
            await self._reach_once()

    @property
    def is_connected(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def _reach(self) -> None:
        self.is_checked = False
        await self._connect()
        await self._check(self)
        self.is_checked = True

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                while not self.is_closed:
                    state = self._channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.READY:
                        return
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise Failed(NOT_SENT, await self._why_not())
                    with _failures(self):
                        await self._channel.wait_for_state_change(state)
        except TimeoutError:
            raise Failed(NOT_SENT, f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        raise Failed(NOT_SENT, CLOSED)

    async def _why_not(self) -> str:
        """grpc tells it only to a call."""
        try:
            await self.call(wire.STATUS, wire.status(), (), CONNECT_TIMEOUT_S)
        except Failed as failed:
            return failed.details.rpartition("last error: ")[2]
        return "no connection"

    async def call(self, method: Method[A], request: Message, metadata: Metadata, timeout_s: float) -> A:
        """
        Raises:
            Failed: without an answer.
        """
        if self.is_closed:
            raise Failed(NOT_SENT, CLOSED)
        ask: grpc.aio.UnaryUnaryMultiCallable[Message, A] = self._channel.unary_unary(
            method.path, request_serializer=_as_bytes, response_deserializer=method.parse
        )
        with _failures(self):
            return await ask(request, timeout=timeout_s, metadata=metadata)

    def stream(self, method: Method[A], metadata: Metadata) -> Stream[A]:
        if self.is_closed:
            raise Failed(NOT_SENT, CLOSED)
        begin: grpc.aio.StreamStreamMultiCallable[Message, A] = self._channel.stream_stream(
            method.path, request_serializer=_as_bytes, response_deserializer=method.parse
        )
        return Stream(self, begin(metadata=metadata))

    async def close(self) -> None:
        self.is_closed = True
        await self._reach_once.stop()
        await self._channel.close()


def _as_bytes(message: Message) -> bytes:
    return message.SerializeToString()


@contextlib.contextmanager
def _failures(link: Link) -> Iterator[None]:
    """grpc's ways to fail, as `Failed`. A closed channel cancels its calls, which is not this task's cancelling."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise Failed(error.code().name, error.details() or "no reason given") from error
    except grpc.aio.UsageError as error:
        raise Failed(NOT_SENT, CLOSED) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if link.is_closed and not (task and task.cancelling()):
            raise Failed("CANCELLED", "this client was closed meanwhile") from None
        raise
