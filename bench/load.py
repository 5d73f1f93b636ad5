"""The load generator, a process of its own: HTTP over raw sockets with keep-alive, so that it costs little.

`python -m bench.load` reads one job as JSON from stdin and prints the result; `run_job` does that from another process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import uvloop

from bench.figures import busy_cpu_seconds

JOB_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Job:
    """Requests of one kind: each body is POSTed to its path, `in_flight` at a time, over as many connections."""

    ports: tuple[int, ...]
    paths: tuple[str, ...]
    bodies: tuple[str, ...]
    in_flight: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """`latencies_ms` in the order of completion; `statuses` counts answers per status; `answers` are the bodies.

    `machine_cpu_seconds`: what all processes of the machine used meanwhile.
    """

    seconds: float
    cpu_seconds: float
    machine_cpu_seconds: float
    statuses: dict[str, int]
    latencies_ms: list[float]
    answers: list[str]


def run_job(job: Job) -> Outcome:
    """Run it in a process of its own and wait."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        timeout=JOB_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is complete."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._needed = 0
        self._status = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.index(b"content-length:") + 15
            stop = head.find(b"\r", at)
            self._needed = end + 4 + int(head[at:] if stop < 0 else head[at:stop])
            self._status = head[9:12]
            self._body_from = end + 4
        if len(self._buffer) >= self._needed:
            self._load.answered(self._status, time.perf_counter() - self._sent, self._buffer[self._body_from :])
            self._buffer, self._needed = b"", 0
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(error)

    def _next(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


class _Load:
    def __init__(self, job: Job) -> None:
        self._requests = [_request(job.paths[i % len(job.paths)], body) for i, body in enumerate(job.bodies)]
        self._requests.reverse()
        self._left = len(self._requests)
        self._statuses: dict[bytes, int] = {}
        self._latencies: list[float] = []
        self._answers: list[bytes] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next_request(self) -> bytes | None:
        return self._requests.pop() if self._requests else None

    def answered(self, status: bytes, seconds: float, body: bytes) -> None:
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._latencies.append(seconds)
        self._answers.append(body)
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)

    def lost(self, error: Exception | None) -> None:
        if self._left and (error is not None or self._requests) and not self._done.done():
            self._done.set_exception(ConnectionError(f"the server closed a connection: {error}"))

    async def run(self, job: Job) -> Outcome:
        loop = asyncio.get_running_loop()
        started, cpu, machine = time.perf_counter(), time.process_time(), busy_cpu_seconds()
        for i in range(job.in_flight):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", job.ports[i % len(job.ports)])
        await asyncio.wait_for(self._done, JOB_TIMEOUT_S)
        return Outcome(
            time.perf_counter() - started,
            time.process_time() - cpu,
            busy_cpu_seconds() - machine,
            {status.decode(): count for status, count in self._statuses.items()},
            [seconds * 1000 for seconds in self._latencies],
            [answer.decode() for answer in self._answers],
        )


def _request(path: str, body: str) -> bytes:
    data = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def _main(plain: dict[str, Any]) -> Outcome:
    job = Job(tuple(plain["ports"]), tuple(plain["paths"]), tuple(plain["bodies"]), plain["in_flight"])
    return await _Load(job).run(job)


def main(argv: Sequence[str] = ()) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(_main(json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    main()
