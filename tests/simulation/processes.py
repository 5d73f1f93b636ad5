"""A process of the simulated cluster: what it has ready to run, whether it lives, and whether it is stopped.

Killing is as hard as kill -9: no task of it ever runs again, and so none of its clean-up. Knows nothing of time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.loop import Handle

KEPT = 256


class Process:
    """`on_death` is called once, by whoever kills it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_stopped = False
        self.ready: list[Handle] = []
        self.on_death: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = KEPT

    def __repr__(self) -> str:
        return self.name

    def kill(self) -> None:
        if self.is_dead:
            return
        self.is_dead = True
        for told in self.on_death:
            told()

    def keep(self, task: asyncio.Task[Any]) -> None:
        """A task that nobody refers to would be collected, and its `finally` run, at a moment that no seed decides."""
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at and not self.is_dead:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._prune_at = max(KEPT, 2 * len(self._tasks))

    def context(self) -> Context:
        """For what runs in this process."""
        context = Context()
        context.run(PROCESS.set, self)
        return context


PROCESS: ContextVar[Process] = ContextVar("process")
TASK: ContextVar[int] = ContextVar("task", default=0)
