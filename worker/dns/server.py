"""The sockets that questions come in by: UDP and TCP on one address of this host, which need not be there yet.

What comes from memory is answered in the very turn of the loop that read it, many at a time; what others have to be
asked is a task, of which there is a bounded number. A datagram can spoil nothing but its own answer. Says what stands
in the way while the port cannot be had, and tries again. Does not know what a name is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from kvnet.model import Address, Condition
from worker.kernel.lowports import bound_low
from worker.log import Log
from worker.ports import Backoff, Time

PORT = 53
IP_FREEBIND = 15  # linux/in.h; Python has no name for it
DATAGRAMS_A_TURN = 64
MOST_WAITING, MOST_WAITING_EACH = 512, 64  # each: of one source
MOST_CONNECTIONS, MOST_CONNECTIONS_EACH = 64, 16
MOST_DATAGRAM = 65_535
RECEIVE_BUFFER = 1 << 20
BACKLOG = 64
IDLE_S = 10.0
RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
LENGTH = struct.Struct("!H")
PORT_TAKEN, UNANSWERED = "dns-port-taken", "dns-unavailable"

Answering = Coroutine[Any, Any, bytes | None]
Asked = Callable[[bytes, str, bool], bytes | Answering | None]


class Sockets(NamedTuple):
    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


class Shares:
    """Of something that there is a bounded number of: no source takes it all from the others."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._taken = Counter[str]()

    def take(self, source: str) -> bool:
        """True: one is taken, to be given back."""
        if self._taken.total() >= self._most or self._taken[source] >= self._each:
            return False
        self._taken[source] += 1
        return True

    def give_back(self, source: str) -> None:
        self._taken[source] -= 1
        if not self._taken[source]:
            del self._taken[source]


class Server:
    """`asked(message, source's address, is over TCP)` answers at once, or by and by, or (None) never."""

    def __init__(self, address: Address, asked: Asked, *, time: Time, log: Log, port: int = PORT) -> None:
        self.conditions: tuple[Condition, ...] = ()
        self.port = port
        self.is_answering = False
        self._address = address
        self._asked = asked
        self._time = time
        self._log = log
        self._waiting: set[asyncio.Task[bytes | None]] = set()
        self._slots = Shares(MOST_WAITING, MOST_WAITING_EACH)
        self._lines = Shares(MOST_CONNECTIONS, MOST_CONNECTIONS_EACH)
        self._talking: set[asyncio.Task[None]] = set()
        self._faults = 0

    async def run(self) -> None:
        """Answer until cancelled."""
        backoff = Backoff(RETRY_S, LONGEST_RETRY_S)
        while True:
            try:
                sockets = open_sockets(str(self._address), self.port)
            except OSError as error:
                self._note(self._why(error))
                await self._time.sleep(backoff.next(self._time))
                continue
            self._note(None)
            backoff.reset()
            try:
                await self._serve(sockets)
            except OSError as error:
                self._log.warning(UNANSWERED, detail=str(error))
            finally:
                sockets.close()
            await self._time.sleep(backoff.next(self._time))

    async def _serve(self, sockets: Sockets) -> None:
        loop = asyncio.get_running_loop()
        self.port = sockets.udp.getsockname()[1]
        self.is_answering = True
        loop.add_reader(sockets.udp.fileno(), self._take, sockets.udp)
        try:
            server = await asyncio.start_server(self._converse, sock=sockets.tcp)
            try:
                await asyncio.Event().wait()
            finally:
                server.close()  # and no wait for whoever is still connected
        finally:
            self.is_answering = False
            loop.remove_reader(sockets.udp.fileno())
            for task in (*self._waiting, *self._talking):
                task.cancel()

    # UDP

    def _take(self, ours: socket.socket) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, source = ours.recvfrom(MOST_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # what an earlier answer came back with
            try:
                self._answer(ours, data, source)
            except Exception as error:  # noqa: BLE001 - one datagram must not end the service
                self._note_fault(error)

    def _answer(self, ours: socket.socket, data: bytes, source: Any) -> None:
        answer = self._asked(data, source[0], False)
        if isinstance(answer, bytes):
            _send(ours, answer, source)
        elif answer is not None:
            self._later(ours, answer, source)

    def _later(self, ours: socket.socket, answer: Answering, source: Any) -> None:
        if not self._slots.take(source[0]):
            answer.close()  # whoever asked will ask again
            return

        def send(task: asyncio.Task[bytes | None]) -> None:
            self._waiting.discard(task)
            self._slots.give_back(source[0])
            if task.cancelled():
                return
            error = task.exception()
            if isinstance(error, Exception):
                self._note_fault(error)
            elif (found := task.result()) is not None:
                _send(ours, found, source)

        task = asyncio.get_running_loop().create_task(answer)
        self._waiting.add(task)
        task.add_done_callback(send)

    # TCP

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        source = (writer.get_extra_info("peername") or ("",))[0]  # "": it is gone already
        if not source or not self._lines.take(source):
            writer.close()
            return
        self._talking.add(task)
        try:
            while await self._exchange(reader, writer, source):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the caller went away
        except Exception as error:  # noqa: BLE001 - one connection must not end the service
            self._note_fault(error)
        finally:
            self._talking.discard(task)
            self._lines.give_back(source)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> bool:
        async with asyncio.timeout(IDLE_S):
            data = await reader.readexactly(LENGTH.unpack(await reader.readexactly(LENGTH.size))[0])
            answer = self._asked(data, source, True)
            found = answer if isinstance(answer, bytes) or answer is None else await answer
            if found is None:
                return False
            writer.write(LENGTH.pack(len(found)) + found)
            await writer.drain()
        return True

    # what is wrong

    def _why(self, error: OSError) -> tuple[str, str]:
        where = f"{self._address} port {self.port}"
        if error.errno == errno.EADDRINUSE:
            fix = "keep that program off this address, or give the worker another with --dns"
            return PORT_TAKEN, f"another program of this host answers at {where}, so kvnet's names are not; {fix}"
        return UNANSWERED, f"names cannot be answered at {where}: {error.strerror or error}"

    def _note(self, problem: tuple[str, str] | None) -> None:
        before = [(condition.code, condition.detail) for condition in self.conditions]
        if problem is None and before:
            self._log.info("dns-answered", address=self._address)
            self.conditions = ()
        elif problem is not None and problem not in before:
            code, detail = problem
            self._log.warning(code, detail=detail)
            self.conditions = (Condition(code, detail, self._time.now()),)

    def _note_fault(self, error: Exception) -> None:
        """Once; a flood of the same would fill the log."""
        self._faults += 1
        if self._faults == 1:
            self._log.error("dns-fault", detail=f"{type(error).__name__}: {error}")


def open_sockets(address: str, port: int) -> Sockets:
    """Bound to that address only, whether a device has it yet or not.

    UDP without SO_REUSEADDR: with it another program that has it too could take the questions away.

    Raises:
        OSError: it cannot be had.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for ours in (udp, tcp):
            ours.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        bound_low(lambda: udp.bind((address, port)), port)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound_low(lambda: tcp.bind((address, udp.getsockname()[1])), port)
        tcp.listen(BACKLOG)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return Sockets(udp, tcp)


def _send(ours: socket.socket, answer: bytes, source: Any) -> None:
    # Whoever asked is gone, or its queue is full: it will ask again.
    with contextlib.suppress(OSError):
        ours.sendto(answer, source)
