"""An event loop whose clock jumps to the next timer instead of waiting for it: hours pass in milliseconds.

Real work in threads and on sockets is still waited for, without the clock moving.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

STUCK_S = 5.0
GLANCE_S = 0.0005


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.jobs = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None or self.jobs:
            ready = super().select(STUCK_S if timeout is None else GLANCE_S)
            if timeout is None and not ready:
                raise RuntimeError("every task waits for something that never comes")
            return ready
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        self._virtual.jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: Any) -> None:
        self._virtual.jobs -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Joining the threads is real work too (from Python 3.12 on it has a timeout, which would be over at once)."""
        self._virtual.jobs += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._virtual.jobs -= 1
