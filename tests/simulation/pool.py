"""Runs scripts in processes of their own, several at a time, and brings what came of them.

A run is thrown away with its process: nothing that it held is cleaned up, so nothing of one run can be seen by another,
and one that hangs is ended from outside. Forks, so that a run costs no start: not for programs that have threads.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.simulation.run import Outcome, run
from tests.simulation.shape import Script

CPU_S = 60  # of one run
LIMIT_S = 1800.0


@dataclass(slots=True)
class _Child:
    pid: int
    reads: int
    script: Script
    until: float
    data: bytes = b""


def outcomes(scripts: Iterable[Script], jobs: int, *, with_trace: bool = False) -> Iterator[tuple[Script, Outcome]]:
    """As they come in, which is not the order of the scripts."""
    waiting = iter(scripts)
    running: dict[int, _Child] = {}
    try:
        while True:
            while len(running) < jobs and (script := next(waiting, None)) is not None:
                child = _start(script, with_trace)
                running[child.reads] = child
            if not running:
                return
            for child in _ended(running):
                del running[child.reads]
                os.close(child.reads)
                _, status = os.waitpid(child.pid, 0)
                yield child.script, _outcome(child, status)
    finally:
        for child in running.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def outcome_of(script: Script, *, with_trace: bool = False) -> Outcome:
    [(_, outcome)] = outcomes([script], 1, with_trace=with_trace)
    return outcome


def _start(script: Script, with_trace: bool) -> _Child:
    reads, writes = os.pipe()
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid:
        os.close(writes)
        return _Child(pid, reads, script, time.monotonic() + LIMIT_S)
    os.close(reads)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    gc.disable()
    try:
        outcome = run(script)
        if not with_trace:
            outcome.trace = []
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(pickle.dumps(outcome))
    finally:
        os._exit(0)


def _ended(running: dict[int, _Child]) -> list[_Child]:
    readable, _, _ = select.select(list(running), [], [], 1.0)
    ended = []
    for reads in readable:
        child = running[reads]
        data = os.read(reads, 1 << 20)
        child.data += data
        if not data:
            ended.append(child)
    now = time.monotonic()
    for child in running.values():
        if child.until < now and child not in ended:
            os.kill(child.pid, signal.SIGKILL)
            ended.append(child)
    return ended


def _outcome(child: _Child, status: int) -> Outcome:
    if child.data:
        outcome: Outcome = pickle.loads(child.data)
        return outcome
    return Outcome(
        child.script.seed, [f"the run ended without a word (status {status}), or took {CPU_S} s of CPU"], 0, ""
    )
