"""An event loop without a clock, sockets or threads: virtual time, and an order of callbacks that a seed decides.

Whatever is scheduled belongs to a process (`processes.Process`), told by the context that it runs in. A turn is what
one process has ready; its tasks run in a seeded order, each task's own callbacks in theirs. A killed process never
runs again, not even its `finally`; a stopped one goes on where it was. Work for threads is done inline, a moment later.
Never waits, and never asks the operating system anything.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar

from tests.simulation.processes import PROCESS, TASK, Process

T = TypeVar("T")

START_S = 1000.0
THREAD_S = 0.002  # what a thread takes for what it is given, at most
MAX_TURNS = 200_000  # at one moment: more is a loop that never waits


class Livelock(Exception):
    """Callbacks follow callbacks and time does not pass."""


class Handle:
    """A callback on its way. As asyncio's, and lighter: a run has hundreds of thousands."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "process", "task")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, process: Process, task: int
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = process
        self.task = task
        self.is_cancelled = False

    def cancel(self) -> None:
        """What is cancelled is passed over when its time comes."""
        self.is_cancelled = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        return self.is_cancelled


class SimulatedLoop(asyncio.AbstractEventLoop):
    """`rng` decides; it may be seeded anew. `errors`: what callbacks raised, and tasks that nobody asked."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.turns = 0
        self.world = Process("world")
        self.errors: list[dict[str, Any]] = []
        self._now = START_S
        self._timers: list[tuple[float, int, Handle]] = []
        self._ready: dict[Process, None] = {}
        self._scheduled = 0
        self._tasks = 0

    # what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[T]:
        context = copy_context() if context is None else context
        self._tasks += 1
        context.run(TASK.set, self._tasks)
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=name, context=context)
        context.get(PROCESS, self.world).keep(task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        if context is None:
            context = copy_context()
        process = context.get(PROCESS, self.world)
        handle = Handle(callback, args, context, process, context.get(TASK, 0))
        if not process.is_dead:
            process.ready.append(handle)
            self._ready[process] = None
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        if context is None:
            context = copy_context()
        handle = Handle(callback, args, context, context.get(PROCESS, self.world), context.get(TASK, 0))
        self._scheduled += 1
        heapq.heappush(self._timers, (when, self._scheduled, handle))
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        done = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
                done.set_exception(error)
            else:
                done.set_result(result)

        self.call_later(self.rng.random() * THREAD_S, work)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    async def shutdown_asyncgens(self) -> None:
        return None

    # time

    @contextmanager
    def entered(self) -> Iterator[None]:
        """It is the running loop for whatever is called inside."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(before)

    def run_for(self, seconds: float) -> None:
        """Let that much time pass."""
        self.run_until(None, seconds)

    def run_until(self, is_true: Callable[[], bool] | None, within_s: float) -> bool:
        """Let time pass until it is so, asked after each turn, or until the time is over."""
        end, turns = self._now + within_s, 0
        while is_true is None or not is_true():
            if self._turn():
                turns += 1
                if turns > MAX_TURNS:
                    raise Livelock(f"{turns} turns at one moment")
            elif self._jump(end):
                turns = 0
            else:
                return False
        return True

    def _jump(self, end: float) -> bool:
        """To the next timer; False where there is none before the end, which is now then."""
        timers = self._timers
        while timers and (timers[0][2].is_cancelled or timers[0][2].process.is_dead):
            heapq.heappop(timers)
        if not timers or timers[0][0] > end:
            self._now = max(self._now, end)
            return False
        now = self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            process = handle.process
            if not (handle.is_cancelled or process.is_dead):
                process.ready.append(handle)
                self._ready[process] = None
        return True

    def _turn(self) -> bool:
        """One process runs what it has ready; False if none has anything."""
        if len(self._ready) == 1:
            [process] = self._ready
            if process.is_stopped or process.is_dead:
                return False
        else:
            ready = [process for process in self._ready if not (process.is_stopped or process.is_dead)]
            if not ready:
                return False
            process = ready[int(self.rng.random() * len(ready))] if len(ready) > 1 else ready[0]
        del self._ready[process]
        batch, process.ready = process.ready, []
        self.turns += 1
        for handle in batch if len(batch) == 1 else self._ordered(batch):
            if process.is_dead:
                return True
            if not handle.is_cancelled:
                try:
                    handle.context.run(handle.callback, *handle.args)
                except Exception as error:  # noqa: BLE001 - as asyncio does: whoever runs the loop is told
                    self.errors.append({"message": f"{handle.callback!r} raised", "exception": error})
        return True

    def _ordered(self, batch: list[Handle]) -> list[Handle]:
        """By task, in an order that the seed decides and nothing else: sets of tasks are in that of their addresses."""
        tasks = sorted({handle.task for handle in batch})
        if len(tasks) > 1:
            place = {task: self.rng.random() for task in tasks}
            batch.sort(key=lambda one: place[one.task])
        return batch


def _nothing() -> None:
    return None
